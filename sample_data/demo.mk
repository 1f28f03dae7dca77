# The pipeline on the sample data; `make demo` in the project's folder runs it. OUT is where the results go.
#
# This is also how a study of your own can look: each output is a target that hangs on what it is made from.

OUT ?= demo-out
SEGCAL ?= segcal
PATIENTS := --groups '(patient_\d+)'

.DELETE_ON_ERROR:
.PHONY: all clean
all: clean $(OUT)/brain-calibrated $(OUT)/brain.csv $(OUT)/brain-report $(OUT)/ratio-report \
     $(OUT)/sets-report $(OUT)/nnunet.csv $(OUT)/cells.csv
	@echo
	@echo "Look at:"
	@echo "  $(OUT)/brain-report/report.html  reliability before and after, in pictures"
	@echo "  $(OUT)/ratio-look-at-these.csv  tumours whose necrosis-to-tumour ratio needs a second look"
	@echo "  $(OUT)/ratio-report/report.html  whether the intervals of that ratio hold what was labelled"
	@echo "  $(OUT)/sets/cases.csv         inner and outer masks of each tumour: volumes, thresholds in mm, flags"
	@echo "  $(OUT)/sets-report/report.html  these masks on the scans, and how often they are wrong"
	@echo "  $(OUT)/brain.csv              calibration and overlap per case and class, raw and calibrated"
	@echo "  $(OUT)/brain-summary.csv      the same over patients, with intervals"
	@echo "  $(OUT)/brain-calibrated/      calibrated probabilities as NIfTI, for any viewer"
	@echo "  $(OUT)/brain-temperature.txt  what the calibrator is, and what it guarantees"

# A demo starts afresh; a study would keep what is up to date.
clean:
	rm -rf $(OUT)

$(OUT)/brain-temperature.npz: brain/calibration
	mkdir -p $(OUT)
	$(SEGCAL) calibrate fit $</predictions $</labels --values logits $(PATIENTS) --split-kind held-out -o $@
	$(SEGCAL) inspect $@ > $(OUT)/brain-temperature.txt

$(OUT)/brain-calibrated: $(OUT)/brain-temperature.npz
	$(SEGCAL) calibrate apply $< brain/test/predictions --values logits -o $@

$(OUT)/brain.csv: $(OUT)/brain-temperature.npz
	$(SEGCAL) evaluate brain/test/predictions brain/test/labels --values logits --artifact temperature=$< \
	  --summary $(OUT)/brain-summary.csv -o $@

$(OUT)/brain-report: $(OUT)/brain-temperature.npz
	$(SEGCAL) reliability brain/test/predictions brain/test/labels --values logits --artifact temperature=$< -o $@

$(OUT)/ratio.npz: brain/calibration
	mkdir -p $(OUT)
	$(SEGCAL) ntr-interval fit $</predictions $</labels --values logits $(PATIENTS) --preset ntr-brats-nnunet -o $@

$(OUT)/ratio.csv: $(OUT)/ratio.npz
	$(SEGCAL) ntr-interval apply $< brain/test/predictions --values logits --triage $(OUT)/ratio-look-at-these.csv -o $@

$(OUT)/ratio-report: $(OUT)/ratio.npz $(OUT)/ratio.csv
	$(SEGCAL) reliability brain/test/predictions brain/test/labels --values logits --artifact ratio=$< \
	  --plots ntr-intervals,ntr-widths,ntr-bias,ntr-width-error -o $@

$(OUT)/sets.npz: brain/calibration
	mkdir -p $(OUT)
	$(SEGCAL) conformal-sets fit $</predictions $</labels --values logits $(PATIENTS) --target tumour=1+2+3 -o $@

$(OUT)/sets: $(OUT)/sets.npz
	$(SEGCAL) conformal-sets apply $< brain/test/predictions --values logits -o $@

$(OUT)/sets-report: $(OUT)/sets.npz $(OUT)/sets
	$(SEGCAL) reliability brain/test/predictions brain/test/labels --values logits --artifact tumour=$< \
	  --plots overlay,false-coverage,set-sizes,set-scores --images brain/test/images --max-cases 6 -o $@

# nnU-Net's own folder says itself what it holds.
$(OUT)/nnunet.csv:
	mkdir -p $(OUT)
	$(SEGCAL) evaluate nnunet brain/test/labels -o $@

$(OUT)/cells-platt.npz: cells/calibration
	mkdir -p $(OUT)
	$(SEGCAL) calibrate fit $</predictions $</labels --classes cells/classes.json --method platt \
	  --split-kind held-out -o $@

$(OUT)/cells.csv: $(OUT)/cells-platt.npz
	$(SEGCAL) evaluate cells/test/predictions cells/test/labels --classes cells/classes.json --artifact platt=$< -o $@
