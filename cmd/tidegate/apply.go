package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/tidegate/tidegate/budget/document"
	"github.com/tidegate/tidegate/events"
)

type budgetApplyCmd struct {
	remote
	File   string `arg:"" help:"JSON: an object with a budget for each port, in the form that get --json prints, the default budget under *; - is standard input. Each is the whole budget: what it leaves out is enabled, by the month, without caps and limits. Ports that are not in it stay as they are."`
	DryRun bool   `help:"Say what would change, and store nothing."`
}

// applied is what became of a port.
type applied struct {
	PortID  string            `json:"port_id"`
	Changes []document.Change `json:"changes"`
	Stored  bool              `json:"stored"`
	Version int64             `json:"version"` // that is stored now

	document document.Document
}

// Run stores nothing before it knows of each port that it can.
func (c *budgetApplyCmd) Run(ctx context.Context) error {
	text, err := readFile(c.File)
	if err != nil {
		return err
	}
	documents, err := document.ParsePorts(text)
	if err != nil {
		return err
	}
	c.Timeout = max(c.Timeout, limitsTimeout)
	return c.ask(ctx, func(ctx context.Context, client *events.Client) error {
		ports, err := compare(ctx, client, documents)
		if err != nil {
			return err
		}
		err = c.apply(ctx, client, ports)
		if c.JSON {
			return errors.Join(printJSON(ports), err)
		}
		return err
	})
}

// compare reads what is stored.
func compare(ctx context.Context, client *events.Client, documents map[string]document.Document) ([]*applied, error) {
	ports, wrong := []*applied{}, []error(nil)
	for _, port := range slices.Sorted(maps.Keys(documents)) {
		d := documents[port]
		stored, err := client.Get(ctx, port)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", port, explain(err))
		}
		p := &applied{PortID: port, Changes: document.Diff(stored, d.Budget), Version: stored.Version, document: d}
		// A file that was applied has an older version than it made.
		if len(p.Changes) > 0 && d.Version != nil && *d.Version != stored.Version {
			wrong = append(wrong, fmt.Errorf("%s: %w", port, otherVersion(d, stored)))
		}
		if request, err := json.Marshal(setWhole(port, d.Budget, d.Version)); err == nil && len(request) > events.MaxPayloadBytes {
			wrong = append(wrong, fmt.Errorf("%s: limits: are %d bytes long, and a message takes %d", port, len(request), events.MaxPayloadBytes))
		}
		ports = append(ports, p)
	}
	return ports, errors.Join(wrong...)
}

func (c *budgetApplyCmd) apply(ctx context.Context, client *events.Client, ports []*applied) error {
	for i, p := range ports {
		if !c.JSON {
			printChanges(p)
		}
		if c.DryRun || len(p.Changes) == 0 {
			continue
		}
		b, err := client.Set(ctx, setWhole(p.PortID, p.document.Budget, &p.Version))
		if errors.Is(err, events.ErrConflict) {
			err = fmt.Errorf("somebody else stored another budget than version %d meanwhile", p.Version)
		}
		if err != nil {
			return fmt.Errorf("%s: %w\n  stored before it: %s; run the command again to go on", p.PortID, explain(err), storedOf(ports[:i]))
		}
		p.Stored, p.Version = true, b.Version
		if !c.JSON {
			fmt.Println(paint(faint, "  stored as version "+strconv.FormatInt(p.Version, 10)))
		}
	}
	return nil
}

func storedOf(ports []*applied) string {
	var names []string
	for _, p := range ports {
		if p.Stored {
			names = append(names, p.PortID)
		}
	}
	if names == nil {
		return "none"
	}
	return strings.Join(names, ", ")
}

func printChanges(p *applied) {
	if len(p.Changes) == 0 {
		fmt.Printf("%s: nothing to change\n", paint(bold, named(p.PortID)))
		return
	}
	fmt.Printf("%s:\n", paint(bold, named(p.PortID)))
	for _, c := range p.Changes {
		switch {
		case c.Field == "" && c.Old == nil:
			fmt.Printf("  %s limit %s\n", paint(good, "+"), wholeLimit(c.New))
		case c.Field == "":
			fmt.Printf("  %s limit %s\n", paint(bad, "-"), wholeLimit(c.Old))
		default:
			of := ""
			if c.Limit != "" {
				of = "limit " + c.Limit + ": "
			}
			fmt.Printf("  %s %s%s: %s → %s\n", paint(warn, "~"), of, c.Field, valueText(c.Old), valueText(c.New))
		}
	}
}

func wholeLimit(text json.RawMessage) string {
	var l events.Limit
	if err := json.Unmarshal(text, &l); err != nil {
		return string(text)
	}
	return fmt.Sprintf("%s: match %s, per %s, window %s, unit %s, soft %s, hard %s",
		l.Name, matchText(l.Match), perText(l.Per), l.Window, unitText(l), capText(l.Soft), capText(l.Hard))
}

// valueText writes numbers as tables do.
func valueText(text json.RawMessage) string {
	var names []string
	n, err := strconv.ParseInt(string(text), 10, 64)
	switch {
	case text == nil:
		return "none"
	case err == nil:
		return count(n)
	case json.Unmarshal(text, &names) == nil:
		return strings.Join(names, ", ")
	}
	return strings.Trim(string(text), `"`)
}
