package identity

import (
	"fmt"
	"testing"
	"time"
)

// Whoever has many addresses fills no memory with them.
func TestAddressesAreForgotten(t *testing.T) {
	a, now := newAttempts(), time.Unix(0, 0)
	most := 0
	for i := range 20_000 {
		now = now.Add(100 * time.Millisecond)
		a.begin(fmt.Sprint(i), now)
		most = max(most, len(a.addresses))
	}
	if most > 200 {
		t.Errorf("%d addresses were held at once", most)
	}
	for i := range 20_000 {
		now = now.Add(100 * time.Millisecond)
		if succeeded, _ := a.begin(fmt.Sprint(i), now); succeeded != nil {
			succeeded()
		}
		most = max(most, len(a.addresses))
	}
	if most > 200 {
		t.Errorf("%d addresses were held at once, of logins that succeeded", most)
	}
}
