//go:build acceptance

package acceptance

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tidegate/tidegate/receipt/picture"
	"github.com/tidegate/tidegate/receipt/tesseract"
)

// sroieVar names a copy of the public repository zzzDavid/ICDAR-2019-SROIE, whose
// pictures must not enter this one.
const sroieVar = "TIDEGATE_SROIE"

// sroieReceipts are the first of the 626, the only ones whose truth the rules for
// reading receipts were made with.
const sroieReceipts = 50

// TestReceiptsAreRead reads photos of real receipts with tesseract and compares day
// and total with what people wrote down.
func TestReceiptsAreRead(t *testing.T) {
	dir := os.Getenv(sroieVar)
	if dir == "" {
		fmt.Fprintf(os.Stderr, "not run: the receipts of ICDAR 2019 SROIE are missing. To run it:\n"+
			"\tgit clone --depth 1 https://github.com/zzzDavid/ICDAR-2019-SROIE /tmp/sroie\n"+
			"\t%s=/tmp/sroie make acceptance ARGS='-run TestReceiptsAreRead -v'\n", sroieVar)
		return
	}
	provider := tesseract.New(tesseract.Config{})
	var days, totals, merchants, both int
	started := time.Now()
	for i := range sroieReceipts {
		truth := sroieTruth(t, dir, i)
		file, err := os.ReadFile(filepath.Join(dir, "data", "img", fmt.Sprintf("%03d.jpg", i)))
		if err != nil {
			t.Fatal(err)
		}
		opened, err := picture.Open(file, 40_000_000)
		if err != nil {
			t.Fatal(err)
		}
		img, err := opened.Decode()
		if err != nil {
			t.Fatal(err)
		}
		read, _, err := provider.Read(t.Context(), nil, img)
		if err != nil {
			t.Fatal(err)
		}
		day := read.Date.Format(time.DateOnly) == truth.day
		total := read.Total != nil && read.Total.String() == truth.total
		days += one(day)
		totals += one(total)
		both += one(day && total)
		merchants += one(plainName(read.Merchant) == plainName(truth.merchant))
		if !day || !total {
			t.Logf("%03d: day right: %t, total right: %t", i, day, total)
		}
	}
	t.Logf("of %d receipts: day %d, total %d, both %d, merchant %d; %s each", sroieReceipts, days, totals, both, merchants, (time.Since(started) / sroieReceipts).Round(time.Millisecond))
	if days*100 < 70*sroieReceipts {
		t.Errorf("the day is right on %d of %d receipts, want 70 %%", days, sroieReceipts)
	}
	if totals*100 < 60*sroieReceipts {
		t.Errorf("the total is right on %d of %d receipts, want 60 %%", totals, sroieReceipts)
	}
}

func one(ok bool) int {
	if ok {
		return 1
	}
	return 0
}

type truth struct{ day, total, merchant string }

// sroieTruth is what people wrote down about one receipt. The total is "" where they
// left it out: nothing that is read is right then.
func sroieTruth(t *testing.T, dir string, i int) truth {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, "data", "key", fmt.Sprintf("%03d.json", i)))
	if err != nil {
		t.Fatal(err)
	}
	var key struct{ Date, Total, Company string }
	if err := json.Unmarshal(text, &key); err != nil {
		t.Fatal(err)
	}
	for _, layout := range []string{"2/1/2006", "2-1-2006", "2-1-06", "2/1/06", "02 Jan 2006", "1/2/2006"} {
		if day, err := time.Parse(layout, key.Date); err == nil {
			return truth{day.Format(time.DateOnly), strings.TrimPrefix(key.Total, "$"), key.Company}
		}
	}
	t.Fatalf("%03d: no known form of a date: %s", i, key.Date)
	return truth{}
}

// plainName is a name without what OCR and people disagree about.
func plainName(s string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' {
			return r
		}
		return -1
	}, strings.ToUpper(s))
}
