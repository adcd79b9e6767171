// Package document reads budgets that people keep in files, and says what makes two budgets
// different.
package document

import (
	"bytes"
	"errors"
	"fmt"

	jsonv2 "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/tidegate/tidegate/budget"
)

// Document is a budget in a file. It is the whole budget: what it leaves out is as in a new
// one, which is enabled, by the month, and has no caps and no limits. With default it says that the
// port has none of its own.
type Document struct {
	PortID  string // "": whatever port it is stored for
	Version *int64 // nil: whatever is stored
	Budget  budget.Budget
}

// file is the form of a document, which is that in which Tidegate prints a budget.
type file struct {
	PortID string `json:"port_id"`
	budget.Budget
	Enabled   *bool          `json:"enabled"`
	Version   *int64         `json:"version"`
	UpdatedAt jsontext.Value `json:"updated_at"` // ignored, like UpdatedBy: Tidegate says who stored it, and when
	UpdatedBy jsontext.Value `json:"updated_by"`
}

// Parse reads a budget. A field that is none, or breaks its rule, is an error that names it.
func Parse(text []byte) (Document, error) {
	var f file
	if err := decode(text, &f); err != nil {
		return Document{}, err
	}
	return f.document()
}

// ParsePorts reads an object with a budget for each port, and for [budget.DefaultPort]. Each port that is wrong is in the
// error, with the first of its fields that is.
func ParsePorts(text []byte) (map[string]Document, error) {
	var ports map[string]jsontext.Value
	if err := decode(text, &ports); err != nil {
		return nil, err
	}
	all, wrong := map[string]Document{}, []error(nil)
	for _, port := range sorted(ports) {
		d, err := Parse(ports[port])
		if err == nil {
			err = d.Budget.ValidateFor(port)
		}
		if err == nil && d.PortID != "" && d.PortID != port {
			err = fmt.Errorf("port_id: names the port %s", d.PortID)
		}
		if err != nil {
			wrong = append(wrong, fmt.Errorf("%s: %w", port, err))
		}
		all[port] = d
	}
	return all, errors.Join(wrong...)
}

func (f *file) document() (Document, error) {
	b := f.Budget
	b.Enabled = f.Enabled == nil || *f.Enabled
	if b.Period == "" {
		b.Period = budget.Month
	}
	for i := range b.Limits {
		b.Limits[i].Counter = 0 // Tidegate's too
	}
	if err := b.Validate(); err != nil || !b.Default {
		return Document{f.PortID, f.Version, b}, err
	}
	// What else it says is the default budget, which is not this port's.
	return Document{f.PortID, f.Version, budget.Budget{Default: true, Period: budget.Month}}, nil
}

// decode takes no field that it does not know: a misspelt one would leave a cap out.
func decode(text []byte, into any) error {
	err := jsonv2.Unmarshal(text, into, jsonv2.RejectUnknownMembers(true))
	var syntax *jsontext.SyntacticError
	var semantic *jsonv2.SemanticError
	switch {
	case errors.As(err, &syntax):
		line := 1 + bytes.Count(text[:syntax.ByteOffset], []byte("\n"))
		if errors.Is(err, jsontext.ErrDuplicateName) {
			return fmt.Errorf("line %d: %s: is there twice", line, budget.FieldAt("", syntax.JSONPointer))
		}
		return fmt.Errorf("line %d is no JSON: %w", line, syntax.Err)
	case errors.As(err, &semantic):
		return explained(semantic)
	}
	return err
}

func explained(e *jsonv2.SemanticError) error {
	field := budget.FieldAt("", e.JSONPointer)
	if field == "" {
		return errors.New("must be a JSON object")
	}
	var rule *budget.FieldError
	switch {
	case errors.Is(e.Err, jsonv2.ErrUnknownName):
		return fmt.Errorf("%s: there is no such field", field)
	case errors.As(e.Err, &rule):
		return fmt.Errorf("%s = %s: %s", field, rule.Value, rule.Rule)
	}
	return fmt.Errorf("%s: must be %s", field, budget.Wanted(e.GoType))
}

// Of is a port's budget in the form that [Parse] reads, to be encoded. It says that there are
// no limits, since to leave them out looks like saying nothing.
func Of(port string, b budget.Budget) any {
	if b.Limits == nil {
		b.Limits = []budget.Limit{}
	}
	return struct {
		PortID string `json:"port_id"`
		budget.Budget
		Limits []budget.Limit `json:"limits"`
	}{port, b, b.Limits}
}
