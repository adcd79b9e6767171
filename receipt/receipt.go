package receipt

import (
	"strconv"
	"time"
)

// Receipt is what was read from a picture. What could not be read has its zero
// value.
type Receipt struct {
	Merchant string
	Date     time.Time // midnight UTC of the day that is printed
	Total    *Amount   // what was to be paid, taxes and rounding included
	Currency string    // ISO 4217
	Items    []Item
}

// Item is one line of what was bought.
type Item struct {
	Description string
	Quantity    float64 // 0: not printed
	Amount      *Amount // of the whole line
}

// Empty reports whether nothing was read that a person would not have to type
// again.
func (r Receipt) Empty() bool {
	return r.Merchant == "" && r.Date.IsZero() && r.Total == nil && len(r.Items) == 0
}

// Amount is a sum of money in hundredths of its currency's unit.
type Amount int64

// OldestYear is the first that a receipt is believed to be from.
const OldestYear = 1995

// MaxAmount is more than any receipt says, and far from overflow.
const MaxAmount Amount = 1e13

func (a Amount) String() string {
	sign, n := "", a
	if n < 0 {
		sign, n = "-", -n
	}
	cents := strconv.FormatInt(int64(n%100), 10)
	if len(cents) < 2 {
		cents = "0" + cents
	}
	return sign + strconv.FormatInt(int64(n/100), 10) + "." + cents
}

// MarshalJSON writes a number with two decimals, so that no reader who takes it
// as text sees a rounding.
func (a Amount) MarshalJSON() ([]byte, error) { return []byte(a.String()), nil }
