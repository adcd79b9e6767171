package text

import "strings"

// role is what the amounts of a line are, by its words.
type role int

const (
	other    role = iota
	total         // what was to be paid
	subtotal      // before taxes, discounts or rounding
	tax           // taxes and service charges
	rounding      // what the rounding to five cents added or took
	paid          // what was handed over
	change        // what came back
	aside         // counts, discounts, points
)

// roleOf reads a line's role from its words, and for a total how clearly it is the
// one to pay.
func roleOf(s string) (r role, weight int) {
	w := letters(s)
	compact := strings.ReplaceAll(w, " ", "")
	isTotal := hasAnyWord(w, "TOTAL", "TOTALS", "TTL", "JUMLAH", "SUMME", "GESAMT") || strings.Contains(compact, "TOTAL")
	switch {
	case hasAnyWord(w, "CHANGE", "BAKI", "KEMBALI", "RUCKGELD"), strings.Contains(compact, "CHANGE"):
		return change, 0
	case hasAnyWord(w, "SUBTOTAL"), strings.Contains(compact, "SUBTOT"), strings.Contains(w, "SUB TOT"):
		return subtotal, 0
	case containsAny(compact, "EXCL", "EXCGST", "BEFORE", "TAXABLE", "WITHOUT"):
		return subtotal, 0
	case hasAnyWord(w, "QTY", "QUANTITY", "ITEMS", "ITEM", "PCS", "POINTS", "SAVING", "SAVINGS", "SAVED", "VOUCHER", "DISCOUNT", "DISC"),
		containsAny(compact, "TOTALQTY", "TOTALDISC", "TOTALSAV", "TOTALITEM"):
		return aside, 0
	case isTotal && (hasAnyWord(w, "ROUNDED", "ROUND") || containsAny(compact, "ROUNDED", "AFTERROUND")),
		hasAnyWord(w, "GRAND"), hasAnyWord(w, "PAYABLE") && !hasAnyWord(w, "GST", "TAX"), containsAny(compact, "GRANDTOTAL", "AMOUNTDUE", "BALANCEDUE", "TOTALDUE", "AMTDUE", "TOTALPAYABLE"):
		return total, 20
	case hasAnyWord(w, "ROUNDING", "ROUND", "RND", "RNDING") || strings.Contains(compact, "ROUNDING"):
		return rounding, 0
	case isTotal && (hasAnyWord(w, "NETT", "NET", "AMOUNT", "AMT", "INCL", "INCLUSIVE", "INC", "SALES", "SALE", "BILL") || containsAny(compact, "INCL", "AMOUNT", "TOTALAMT", "TOTALSALES")),
		hasAnyWord(w, "NETT"):
		return total, 10
	case isTotal && hasAnyWord(w, "GST", "TAX", "SST", "VAT", "SVC", "SERVICE"):
		return tax, 0
	case isTotal:
		return total, 10
	case hasAnyWord(w, "CASH", "TUNAI", "TENDER", "TENDERED", "PAID", "VISA", "MASTERCARD", "MASTER", "DEBIT", "CREDIT", "CARD", "AMEX", "MAESTRO", "PAYMENT", "RECEIVED"):
		return paid, 0
	case hasAnyWord(w, "GST", "TAX", "SST", "VAT", "SERVICE", "CHARGE", "SERV"):
		return tax, 0
	}
	return other, 0
}
