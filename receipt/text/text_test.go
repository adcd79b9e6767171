package text

import (
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tidegate/tidegate/receipt"
)

var today = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

func lines(s string) (all []Line) {
	for line := range strings.SplitSeq(strings.Trim(s, "\n"), "\n") {
		all = append(all, NewLine(line))
	}
	return all
}

func TestAmounts(t *testing.T) {
	for s, want := range map[string]string{
		"TOTAL 9.00":               "9.00",
		"RM 73. 00":                "73.00",
		"RM9.00":                   "9.00",
		"RN 60,31":                 "60.31", // OCR of RM
		"$1,234.56":                "1234.56",
		"1.234,56 €":               "1234.56",
		"12 345,67":                "12345.67",
		"1,234,567.89":             "1234567.89",
		"-0.01":                    "-0.01",
		"0.05-":                    "-0.05",
		"-RM 0.02":                 "-0.02",
		"lO.5O":                    "", // more letters than digits
		"1O.50":                    "10.50",
		"15.90 SR":                 "15.90",
		"15.90S":                   "15.90",
		"15.90 15.90":              "15.90 15.90",
		"2 x 42.00 = 84.00":        "42.00 84.00",
		"25/12/2018":               "",
		"25.12.2018":               "",
		"18:24:59":                 "",
		"GST 6.00 %":               "",
		"GST 6.00%":                "",
		"version 1.2.34":           "",
		"A1.50":                    "", // a code
		"60.50kg":                  "",
		"12345":                    "",
		"03-5550 1234":             "",
		"99999999999.99":           "",
		"TOTAL":                    "",
		"":                         "",
		"1.2":                      "",
		"1.234":                    "",
		"0.00":                     "0.00",
		"RM":                       "",
		strings.Repeat("9.99 ", 3): "9.99 9.99 9.99",
	} {
		var got []string
		for _, f := range amounts(s) {
			got = append(got, f.amount.String())
			if s[f.begin:f.end] == "" {
				t.Errorf("%q: an amount at nothing", s)
			}
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%q: %v, want %q", s, got, want)
		}
	}
}

func TestDates(t *testing.T) {
	for s, want := range map[string]string{
		"25/12/2018":                      "2018-12-25",
		"Date: 5/3/2018":                  "2018-03-05",
		"12-01-19 21:13":                  "2019-01-12",
		"12 01-19 21:13":                  "2019-01-12",
		"12/28/2017 10:17:32 PM":          "2017-12-28", // no such month: the month comes first
		"03/04/2018":                      "2018-04-03", // the day comes first
		"#19- 18/01/2018 10:27":           "2018-01-18",
		"2018-03-05":                      "2018-03-05",
		"2018/03/05 12:00":                "2018-03-05",
		"05 MAR 2018":                     "2018-03-05",
		"5-Mar-18":                        "2018-03-05",
		"05Mar2018":                       "2018-03-05",
		"March 5, 2018":                   "2018-03-05",
		"Mar 5th 2018":                    "2018-03-05",
		"14. Dezember 2020":               "2020-12-14",
		"14.12.2020":                      "2020-12-14",
		"O5/O3/2O18":                      "2018-03-05",
		"l5/03/2018":                      "2018-03-15",
		"29/02/2024":                      "2024-02-29",
		"29/02/2023":                      "",
		"31/04/2018":                      "",
		"00/00/0000":                      "",
		"01/01/1970":                      "",
		"25/12/2026":                      "",           // has not come yet
		"25/11/2026":                      "2026-11-25", // has, somewhere
		"13/13/2018":                      "",
		"TEL 03-3271 9872":                "",
		"2018":                            "",
		"":                                "",
		"DATE 01/02/2018\nDUE 01/03/2018": "2018-02-01",
		"Member since 01/02/2010\nDate 03/04/2018": "2018-04-03",
		"Expiry date 01/02/2020\n03/04/2018 18:00": "2018-04-03",
		"12.03.18 4.50 9.00":                       "2018-03-12",
	} {
		got := ""
		if r := Read(today, lines(s)); !r.Date.IsZero() {
			got = r.Date.Format(time.DateOnly)
		}
		if got != want {
			t.Errorf("%q: %q, want %q", s, got, want)
		}
	}
}

func TestTotals(t *testing.T) {
	for s, want := range map[string]string{
		"TOTAL 9.00":       "9.00",
		"T0TAL 9.00":       "9.00",
		"TOTA1 : RM 9.00":  "9.00",
		"Total (RM): 9.00": "9.00",
		"GRAND TOTAL 9.00\nCASH 10.00\nCHANGE 1.00":                         "9.00",
		"Sub Total 8.49\nGST 6% 0.51\nTOTAL 9.00\nCASH 50.00\nCHANGE 41.00": "9.00",
		"SUBTOTAL 8.49\nTOTAL GST 0.51\nTotal Incl. GST 9.00":               "9.00",
		"TOTAL\n9.00": "9.00",
		"TOTAL 9.02\nROUNDING ADJ -0.02\nTOTAL ROUNDED 9.00":                    "9.00",
		"Total Sales (Excluding GST) 8.49\nTotal Sales (Inclusive of GST) 9.00": "9.00",
		"AMOUNT DUE 9.00\nVISA 9.00":                                            "9.00",
		"Total Qty 3\nTotal Items 4.00\nNett Total 9.00":                        "9.00",
		"TOTAL DISCOUNT 1.00\nTOTAL 9.00":                                       "9.00",
		"TOTAL 6O.3O":                                                           "60.30",
		"TOTAL $8.20\nTotal 7.74 0.46":                                          "8.20", // the second is net and tax
		"TOTAL : z/48\nCASH 20.00\nCHANGE 11.00\nSR 8.49 0.51":                  "9.00", // the name's amount is lost; the others agree
		"TUNAI 10.00\nBAKI 1.00\n9.00":                                          "9.00",
		"JUMLAH 9.00":                                                           "9.00",
		"SUMME EUR 9,00":                                                        "9.00",
		"Balance due £9.00":                                                     "9.00",
		"CASH 50.00\nCHANGE 41.00":                                              "9.00",
		"CASH 50.00":                                                            "",
		"GST 0.51":                                                              "",
		"Thank you":                                                             "",
		"TOTAL 0.00":                                                            "",
		"TOTAL -9.00":                                                           "",
	} {
		got := ""
		if r := Read(today, lines(s)); r.Total != nil {
			got = r.Total.String()
		}
		if got != want {
			t.Errorf("%q: %q, want %q", s, got, want)
		}
	}
}

func TestMerchantsAndCurrencies(t *testing.T) {
	for s, want := range map[string][2]string{
		"scribble\nHARBOUR SUPPLY SDN BHD\n12, JALAN PELABUHAN\nTAX INVOICE\nRM 9.00": {"HARBOUR SUPPLY SDN BHD", "MYR"},
		"~ . =\nHARBOUR SUPPLY SON. BHD. (12345-X)\nTEL 03-555":                       {"HARBOUR SUPPLY SDN BHD", "MYR"},
		"HOME MASTER HARDWARE &\nELECTRICAL\nNO. 113 JALAN SETIA":                     {"HOME MASTER HARDWARE & ELECTRICAL", ""},
		"TAX INVOICE\nThe Corner Cafe\n1 Main Street\nTOTAL £9.00":                    {"The Corner Cafe", "GBP"},
		"Bäckerei Müller GmbH\nSUMME EUR 9,00":                                        {"Bäckerei Müller GmbH", "EUR"},
		"MARINA STORE LLC\nTOTAL $9.00":                                               {"MARINA STORE LLC", "USD"},
		"QUAY PTE LTD\nTOTAL $9.00":                                                   {"QUAY PTE LTD", "SGD"},
		"123 456\n---":                                                                {"", ""},
		"":                                                                            {"", ""},
	} {
		r := Read(today, lines(s))
		if r.Merchant != want[0] || r.Currency != want[1] {
			t.Errorf("%q: %q in %q, want %q", s, r.Merchant, r.Currency, want)
		}
	}
}

func TestItems(t *testing.T) {
	r := Read(today, lines(`
CAFE
Date 01/02/2020 18:00
Qty Item Price
2 Flat White 9.00
1 x Croissant 3.50
CHEESE CAKE
1PC * 7.00 7.00
9556939040118 3.00
Discount 1.00
Subtotal 22.50
Service 2.25
TOTAL 24.75
Points 5.00`))
	want := []struct {
		name     string
		quantity float64
		amount   receipt.Amount
	}{{"Flat White", 2, 900}, {"Croissant", 1, 350}, {"CHEESE CAKE", 1, 700}}
	if len(r.Items) != len(want) {
		t.Fatalf("%+v", r.Items)
	}
	for i, w := range want {
		if it := r.Items[i]; it.Description != w.name || it.Quantity != w.quantity || *it.Amount != w.amount {
			t.Errorf("item %d: %+v %v, want %+v", i, it, it.Amount, w)
		}
	}
}

func TestLooksConfirmEachOther(t *testing.T) {
	r := Read(today, lines("TOTAL 3.60\nDate 26/01/2018"), lines("TOTAL 8.60\nDate 25/01/2018"), lines("TOTAL 8.60\nDate 25/01/2018"))
	if r.Total == nil || *r.Total != 860 || r.Date.Day() != 25 {
		t.Errorf("%+v", r)
	}
}

func TestRowsJoinWhatStandsSideBySide(t *testing.T) {
	word := func(s string, x, y int) Word { return Word{Text: s, X: x, Y: y, W: 12 * len(s), H: 20, Confidence: 90} }
	got := Rows([][]Word{
		{word("ROPE", 0, 100), word("12MM", 60, 101)},
		{word("TOTAL", 0, 140)},
		{word("84.00", 500, 106)}, // the row is crooked
		{word("103.90", 500, 143)},
		{word("ITEM", 0, 60)},
		{word(" ", 0, 0), {Text: "x"}},
	})
	var all []string
	for _, l := range got {
		all = append(all, l.String())
	}
	if want := "ITEM|ROPE 12MM 84.00|TOTAL 103.90"; strings.Join(all, "|") != want {
		t.Errorf("%q, want %q", all, want)
	}
}

// A page made to keep the rules busy does not: neither one of very many lines, of which the first 300 are read, nor
// one of long lines, a fifth as many as there may be. Measured in the CPU's time: others may keep the machine
// busy meanwhile.
func TestAFullPageIsReadInTime(t *testing.T) {
	used := func() time.Duration {
		var u syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
			t.Fatal(err)
		}
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	for name, c := range map[string]struct {
		lines, bytes int
		atMost       time.Duration // more than three times what it takes under the race detector; without, a twentieth
	}{
		"many lines": {5000, 40, 3 * time.Second},
		"long lines": {maxLines / 5, maxLineBytes - 8, 6 * time.Second},
	} {
		for _, line := range []string{"CASH 1.23 4.56 CHANGE", "1.23 ", "9,999"} {
			var page []Line
			for i := range c.lines {
				page = append(page, NewLine(strings.Repeat(line, c.bytes/len(line))+strconv.Itoa(i)+".99"))
			}
			if len(page[0].Words) == 0 {
				t.Fatal("a line is longer than what is read of it")
			}
			started := used()
			Read(today, page)
			if took := used() - started; took > c.atMost {
				t.Errorf("%s of %q: it took %s", name, line, took)
			}
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add("CAFE\n2 Flat White 9.00\nTOTAL RM 9.00\nDate 25/12/2018\nCASH 10.00\nCHANGE 1.00")
	f.Add("5 Mar 18 1.234,56-")
	f.Fuzz(func(t *testing.T, s string) {
		r := Read(today, lines(s), lines(strings.ToUpper(s)))
		if r.Total != nil && (*r.Total <= 0 || *r.Total > 3*receipt.MaxAmount) {
			t.Errorf("total %v", *r.Total)
		}
		if !r.Date.IsZero() && (r.Date.Year() < receipt.OldestYear || r.Date.After(today.Add(24*time.Hour))) {
			t.Errorf("date %v", r.Date)
		}
	})
}
