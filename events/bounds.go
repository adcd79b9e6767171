package events

import (
	"fmt"
	"math"
	"time"
)

// What Tidegate's own processes tell each other is bounded like everything else: one
// message that is wrong, or forged by whoever may publish there, must not make a gate
// allocate, remember for ever, or read all totals again. A message with anything out of
// these bounds is ignored as a whole; the next reading of the ledger has what is true.
const (
	// MaxNoticePorts is how many ports a message between Tidegate's processes names.
	MaxNoticePorts = 10_000

	maxSum       = math.MaxInt64 / 2 // tokens of a port on one day, or held
	maxNameChars = 64                // of a consumer or a gate
	maxAhead     = 5 * time.Minute   // of clocks
	daysAhead    = 2                 // after today, for clocks and for days that are just over
	daysAsked    = 400               // the end of a period, after today
	secondsOfDay = 24 * 60 * 60
)

// Validate reports the first field that is out of bounds, as a [*FieldError].
func (n TotalsNotice) Validate(now time.Time) error {
	if err := checkText("from", n.From, maxNameChars, false); err != nil {
		return err
	}
	if n.At.After(now.Add(maxAhead)) {
		return invalid("at", n.At, "must not be in the future")
	}
	if n.From == "" && len(n.Ports) > 0 {
		return invalid("from", n.From, "must name the consumer")
	}
	if err := checkLengths(len(n.Ports), len(n.Days), len(n.Tokens)); err != nil {
		return err
	}
	latest := now.Unix()/secondsOfDay + daysAhead
	for i, port := range n.Ports {
		if err := checkSum("ports", port, "tokens", n.Tokens[i]); err != nil {
			return err
		}
		if day := int64(n.Days[i]); day < 0 || day > latest {
			return invalid("days", day, fmt.Sprintf("must be from 0 to %d", latest))
		}
	}
	return checkPorts("deleted", n.Deleted)
}

// Validate reports the first field that is out of bounds, as a [*FieldError]. latest is
// what the database's clock says by now at the latest.
func (n HoldsNotice) Validate(latest time.Time) error {
	if err := checkLengths(len(n.Ports), len(n.Tokens), len(n.At)); err != nil {
		return err
	}
	for i, port := range n.Ports {
		if err := checkSum("ports", port, "tokens", n.Tokens[i]); err != nil {
			return err
		}
		if n.At[i] <= 0 || n.At[i] > latest.UnixMicro() {
			return invalid("at", n.At[i], "must be positive and not in the future")
		}
	}
	return checkPorts("recall", n.Recall)
}

// Validate reports the first field that is out of bounds, as a [*FieldError].
func (n BudgetNotice) Validate(now time.Time) error {
	if err := checkPort(n.PortID); err != nil {
		return err
	}
	if v := n.Budget.Version; v < 0 || v > math.MaxInt32 {
		return invalid("version", v, fmt.Sprintf("must be from 0 to %d", math.MaxInt32))
	}
	if n.Budget.UpdatedAt.After(now.Add(maxAhead)) {
		return invalid("updated_at", n.Budget.UpdatedAt, "must not be in the future")
	}
	return n.Budget.Validate()
}

// Validate reports the first field that is out of bounds, as a [*FieldError].
func (r GateUsedRequest) Validate(now time.Time) error {
	latest := now.Unix()/secondsOfDay + daysAsked
	if r.Start < 0 || r.Start > r.End || int64(r.End) > latest {
		return invalid("start", int64(r.Start), fmt.Sprintf("must be from 0 to end (%d), which must be at most %d", r.End, latest))
	}
	return checkPorts("ports", r.Ports)
}

// Validate reports the first field that is out of bounds in the answer to a request
// for that many ports, as a [*FieldError].
func (u GateUsed) Validate(ports int) error {
	if err := checkText("gate", u.Gate, maxNameChars, true); err != nil {
		return err
	}
	if len(u.Tokens) != ports {
		return invalid("tokens", int64(len(u.Tokens)), fmt.Sprintf("must be as many as the ports asked for (%d)", ports))
	}
	for _, tokens := range u.Tokens {
		if tokens < 0 {
			return invalid("tokens", tokens, "must not be negative")
		}
	}
	return nil
}

func checkLengths(ports int, others ...int) error {
	if ports > MaxNoticePorts {
		return invalid("ports", int64(ports), fmt.Sprintf("must be at most %d", MaxNoticePorts))
	}
	for _, n := range others {
		if n != ports {
			return invalid("ports", int64(ports), fmt.Sprintf("must be as many as what is said of them (%d)", n))
		}
	}
	return nil
}

func checkPorts(field string, ports []string) error {
	if len(ports) > MaxNoticePorts {
		return invalid(field, int64(len(ports)), fmt.Sprintf("must be at most %d", MaxNoticePorts))
	}
	for _, port := range ports {
		if !ValidPort(port) {
			return invalid(field, port, "must be 1 to 64 of A-Z a-z 0-9 _ -")
		}
	}
	return nil
}

func checkSum(field, port, of string, tokens int64) error {
	if !ValidPort(port) {
		return invalid(field, port, "must be 1 to 64 of A-Z a-z 0-9 _ -")
	}
	if tokens < 0 || tokens > maxSum {
		return invalid(of, tokens, fmt.Sprintf("must be from 0 to %d", int64(maxSum)))
	}
	return nil
}
