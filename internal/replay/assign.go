package replay

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"sort"
	"strconv"
	"time"

	"github.com/tidegate/tidegate/events"
)

// Feature is what a call was for, and what answered it.
type Feature struct {
	Name     string
	Provider string
	Model    string
}

// Features are the default ones. All of them generate text, as a trace's calls
// do; that rules out embeddings.
func Features() []Feature {
	return []Feature{
		{"reply_draft", "anthropic", "claude-sonnet-4-5"},
		{"summary", "openai", "gpt-5-mini"},
		{"ocr", "anthropic", "claude-haiku-4-5"},
		{"translation", "gemini", "gemini-2.5-flash"},
		{"search_answer", "openai", "gpt-5"},
		{"classification", "bedrock", "amazon.nova-lite-v1:0"},
	}
}

// assignment gives each row what the trace leaves out. It depends on the seed and
// the row's line alone, so it is the same in every run.
type assignment struct {
	seed     int64
	ports    []string
	features []Feature
	users    uint64

	portShares, featureShares shares
}

func newAssignment(cfg Config) assignment {
	a := assignment{
		seed: cfg.Seed, ports: make([]string, cfg.Ports), features: cfg.Features, users: uint64(cfg.Users),
		portShares: newShares(cfg.Ports), featureShares: newShares(len(cfg.Features)),
	}
	for i := range a.ports {
		a.ports[i] = "p" + strconv.Itoa(i+1)
	}
	return a
}

func (a *assignment) usage(r row, at time.Time) events.Usage {
	var key [12]byte
	binary.BigEndian.PutUint64(key[:8], uint64(a.seed))
	binary.BigEndian.PutUint32(key[8:], r.line)
	chance := sha256.Sum256(key[:])
	port := a.ports[a.portShares.pick(binary.BigEndian.Uint64(chance[0:]))]
	feature := a.features[a.featureShares.pick(binary.BigEndian.Uint64(chance[8:]))]
	user := 1 + binary.BigEndian.Uint64(chance[16:])%a.users
	return events.Usage{
		ID: rowID(a.seed, r, at), OccurredAt: at,
		PortID: port, UserID: port + "-u" + strconv.FormatUint(user, 10),
		Feature: feature.Name, Provider: feature.Provider, Model: feature.Model,
		InputTokens: r.context, OutputTokens: r.generated,
		MeasuredBy: events.MeasuredByProvider, Status: events.StatusOK,
	}
}

const (
	rowBits  = 32
	hashBits = 42
	// MaxSeed is the largest seed whose ids are known to differ from every other's.
	MaxSeed = 1<<hashBits - 1
)

// rowID is a UUIDv7 whose time is the row's moved time. Its other 74 bits are
//
//	42 bits: a hash of the row's line and contents, XOR the seed
//	32 bits: the row's line in the file, the last eight hex digits
//
// Two ids of one file differ by construction: in the line within one replay; in
// the time if the same line is moved to another start; in the 42 bits for another
// seed. Different files part company in the hash.
func rowID(seed int64, r row, at time.Time) string {
	var key [28]byte
	binary.BigEndian.PutUint64(key[0:], uint64(r.at.UnixNano()))
	binary.BigEndian.PutUint64(key[8:], uint64(r.context))
	binary.BigEndian.PutUint64(key[16:], uint64(r.generated))
	binary.BigEndian.PutUint32(key[24:], r.line)
	sum := sha256.Sum256(key[:])
	hash := binary.BigEndian.Uint64(sum[:])>>(64-hashBits) ^ uint64(seed)

	var id [16]byte
	binary.BigEndian.PutUint64(id[:8], uint64(at.UnixMilli())<<16|0x7000|hash>>30)
	binary.BigEndian.PutUint64(id[8:], 1<<63|hash&(1<<30-1)<<rowBits|uint64(r.line))
	return uuidText(id)
}

// uuidText is the canonical form, 8-4-4-4-12 hex digits.
func uuidText(id [16]byte) string {
	var s [36]byte
	hex.Encode(s[0:], id[0:4])
	hex.Encode(s[9:], id[4:6])
	hex.Encode(s[14:], id[6:8])
	hex.Encode(s[19:], id[8:10])
	hex.Encode(s[24:], id[10:])
	s[8], s[13], s[18], s[23] = '-', '-', '-', '-'
	return string(s[:])
}

// shares are the running sums of weights 1, 1/2, 1/3 and so on, in whole numbers:
// floating point may round differently on another machine.
type shares []uint64

func newShares(n int) shares {
	s := make(shares, n)
	sum := uint64(0)
	for i := range s {
		sum += 1 << 32 / uint64(i+1)
		s[i] = sum
	}
	return s
}

// pick turns an evenly distributed number into a place.
func (s shares) pick(chance uint64) int {
	at := chance % s[len(s)-1]
	return sort.Search(len(s), func(i int) bool { return at < s[i] })
}
