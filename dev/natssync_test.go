package dev

import "testing"

// A killed process does not show what a power failure would lose.
func TestNATSSyncsAlways(t *testing.T) {
	n, err := StartNATS(NATSConfig{Dir: t.TempDir(), Addr: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Shutdown()
	if c := n.server.JetStreamConfig(); c == nil || !c.SyncAlways {
		t.Errorf("JetStream runs as %+v", c)
	}
}
