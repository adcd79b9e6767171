package main

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/tidegate/tidegate/ledger"
)

func TestPortsArePrintedAsTheyCome(t *testing.T) {
	t.Parallel()
	for _, n := range []int{0, 1, 3, 1001} {
		ports := []ledger.Port{}
		for i := range n {
			ports = append(ports, ledger.Port{PortID: fmt.Sprintf("port-%d", i), Name: "<b>"})
		}
		var all, out bytes.Buffer
		if err := writeJSON(&all, ports); err != nil {
			t.Fatal(err)
		}
		each := func(f func(ledger.Port) bool) error {
			for i, p := range ports {
				if before := i - portsTogether; before >= 0 && !strings.Contains(out.String(), fmt.Sprintf("port-%d", before)) {
					t.Fatalf("of %d ports, number %d is not printed when number %d is there", n, before, i)
				}
				f(p)
			}
			return nil
		}
		if err := listPorts(&out, true, each); err != nil || out.String() != all.String() {
			t.Errorf("%d ports as JSON: %v\n%.300s\nwant\n%.300s", n, err, out.String(), all.String())
		}
		out.Reset()
		if err := listPorts(&out, false, each); err != nil || strings.Count(out.String(), "port-") != n || strings.Count(out.String(), "all time") != max(1, (n+portsTogether-1)/portsTogether) {
			t.Errorf("%d ports: %v\n%.300s", n, err, out.String())
		}
		if lines := strings.Split(out.String(), "\n"); strings.HasSuffix(out.String(), "\n\n") || lines[0] == "" {
			t.Errorf("%d ports: empty lines around the table", n)
		}
	}
	var out bytes.Buffer
	gone := errors.New("NATS is away")
	if err := listPorts(&out, false, func(f func(ledger.Port) bool) error { f(ledger.Port{PortID: "p1"}); return gone }); !errors.Is(err, gone) || !strings.Contains(out.String(), "p1") {
		t.Errorf("what came before an error: %v, %q", err, out.String())
	}
}
