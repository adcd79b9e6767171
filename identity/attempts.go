package identity

import (
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// How many logins may fail: ten at once from one address and then one every six
// seconds, a hundred at once from everywhere and then one a second. A login that
// succeeds costs nothing.
const (
	failuresPerAddress = 10
	failuresOverall    = 100
)

var (
	addressRefill = rate.Every(6 * time.Second)
	overallRefill = rate.Every(time.Second)
)

// attempts limits failed logins. Codes of 128 random bits are not found by trying;
// this keeps those who try anyway from costing more than that.
type attempts struct {
	mu        sync.Mutex
	overall   *rate.Limiter
	addresses map[string]*rate.Limiter
}

func newAttempts() *attempts {
	return &attempts{overall: rate.NewLimiter(overallRefill, failuresOverall), addresses: make(map[string]*rate.Limiter)}
}

// begin counts an attempt as failed until succeeded is called. When there were too
// many it returns how long to wait instead.
func (a *attempts) begin(address string, now time.Time) (succeeded func(), wait time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	overall := a.overall.ReserveN(now, 1)
	if wait := overall.DelayFrom(now); wait > 0 {
		overall.CancelAt(now)
		return nil, wait
	}
	a.forget(now)
	limiter, known := a.addresses[address]
	if !known {
		limiter = rate.NewLimiter(addressRefill, failuresPerAddress)
		a.addresses[address] = limiter
	}
	one := limiter.ReserveN(now, 1)
	if wait := one.DelayFrom(now); wait > 0 {
		one.CancelAt(now)
		overall.CancelAt(now)
		return nil, wait
	}
	return func() { one.CancelAt(now); overall.CancelAt(now) }, 0
}

// forget drops addresses that have nothing left to wait for. The overall limit
// bounds how many remain: about 160.
func (a *attempts) forget(now time.Time) {
	for address, limiter := range a.addresses {
		if limiter.TokensAt(now) >= failuresPerAddress {
			delete(a.addresses, address)
		}
	}
}

// clientAddress is whom to count: the address of the connection, not what a header
// claims; of IPv6 the /64, which one customer has to himself. Behind a proxy all
// clients are one.
func clientAddress(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return host
	}
	if addr = addr.Unmap().WithZone(""); addr.Is6() {
		prefix, _ := addr.Prefix(64) // 64 is a legal length
		return prefix.String()
	}
	return addr.String()
}
