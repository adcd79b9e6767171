package main

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/tidegate/tidegate/events"
)

// tokens is a cap on the command line; n is nil for "none".
type tokens struct{ n *int64 }

func (t *tokens) UnmarshalText(text []byte) (err error) {
	if t.n, err = parseTokens(string(text)); err != nil {
		return fmt.Errorf("%q %w", text, err)
	}
	return nil
}

const space = `[\pZ\t\n\v\f\r]`

var (
	unit      = regexp.MustCompile(`(?i)` + space + `*tokens?$`)
	quantity  = regexp.MustCompile(`(?i)^((?:[0-9.,_'’]|` + space + `)+?)` + space + `*([kmgbt]?)$`)
	grouped   = regexp.MustCompile(`^[1-9][0-9]{0,2}(?:(?:[,_'’]|` + space + `)[0-9]{3})+$`)
	digits    = regexp.MustCompile(`^[0-9]+$`)
	noDigit   = regexp.MustCompile(`[^0-9]`)
	zerosOf   = map[string]int{"": 0, "k": 3, "m": 6, "g": 9, "b": 9, "t": 12}
	errNumber = errors.New("is not a number of tokens: try 1.5M, 200k or 1,500,000")
	errGroups = errors.New("has a comma or a space that groups no three digits: write 1.5M or 1,500,000")
)

// parseTokens reads a number of tokens as people type it; nil is none. The admin page
// has the same rules (format.js), and admin/page/testdata/tokens.json is the table of both.
func parseTokens(text string) (*int64, error) {
	number := unit.ReplaceAllString(strings.TrimSpace(text), "")
	match := quantity.FindStringSubmatch(number)
	switch {
	case strings.EqualFold(number, "none"):
		return nil, nil
	case strings.HasPrefix(number, "-"):
		return nil, errors.New("must not be negative")
	case match == nil || !strings.ContainsAny(match[1], "0123456789"):
		return nil, errNumber
	}
	integer, fraction, decimal := strings.Cut(match[1], ".")
	switch {
	case integer == "" || decimal && fraction == "" || strings.Contains(fraction, "."):
		return nil, errNumber
	case !digits.MatchString(integer) && !grouped.MatchString(integer) || decimal && !digits.MatchString(fraction):
		return nil, errGroups
	}
	zeros := zerosOf[strings.ToLower(match[2])]
	fraction = strings.TrimRight(fraction, "0")
	if len(fraction) > zeros {
		return nil, errors.New("must be a whole number of tokens")
	}
	whole := noDigit.ReplaceAllString(integer, "") + fraction + strings.Repeat("0", zeros-len(fraction))
	n, err := strconv.ParseInt(whole, 10, 64)
	if err != nil || n > events.MaxCapTokens { // digits only: it is too large
		return nil, errors.New("must be at most " + count(events.MaxCapTokens))
	}
	return &n, nil
}
