package hold

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"

	"github.com/google/uuid"

	"github.com/tidegate/tidegate/budget"
)

// The id of a hold made from a lease says which one it is and how much it holds,
// signed with the lease's secret: base64url of
//
//	version 1, lease (16 bytes), number (2 bytes), tokens (uvarint), signature (12 bytes)
//
// or, of a lease that says whose calls it is for, with three more uvarints after the tokens: whose
// this one is, and its input and output tokens:
//
//	version 2, lease, number, tokens, place in [budget.Leased.Calls] once it is sealed, input, output, signature
//
// The id of any other hold is a UUID.

const (
	leasedVersion   = 1
	leasedOfVersion = 2
	signatureBytes  = 12
)

type leasedID struct {
	lease uuid.UUID
	n     int // which hold of the lease, counted from 0
	of    int // whose it is; -1: the lease does not say whose its calls are
	budget.Estimate
	signed    []byte
	signature []byte
}

// HoldID is the reservation id of the nth hold of the lease, counted from 0. of is the place
// of whose it is in Calls once the lease is sealed, -1 if the lease does not say whose its calls are.
func (l *Lease) HoldID(n, of int, e budget.Estimate) string {
	buf := make([]byte, 0, 1+16+2+4*binary.MaxVarintLen64+signatureBytes)
	buf = append(append(buf, leasedVersion), l.ID[:]...)
	buf = binary.BigEndian.AppendUint16(buf, uint16(n))
	buf = binary.AppendUvarint(buf, uint64(e.Tokens))
	if of >= 0 {
		buf[0] = leasedOfVersion
		for _, v := range [...]uint64{uint64(of), uint64(e.Input), uint64(e.Output)} {
			buf = binary.AppendUvarint(buf, v)
		}
	}
	return base64.RawURLEncoding.EncodeToString(append(buf, sign(l.secret, buf)...))
}

// parseLeasedID reads an id that [Lease.HoldID] may have made. Whether it did, only
// the lease's secret tells.
func parseLeasedID(id string) (h leasedID, ok bool) {
	buf, err := base64.RawURLEncoding.Strict().DecodeString(id)
	if err != nil || len(buf) < 1+16+2+1+signatureBytes || buf[0] != leasedVersion && buf[0] != leasedOfVersion {
		return h, false
	}
	h.signed, h.signature = buf[:len(buf)-signatureBytes], buf[len(buf)-signatureBytes:]
	h.lease = uuid.UUID(buf[1:17])
	h.n = int(binary.BigEndian.Uint16(buf[17:19]))
	rest, of := h.signed[19:], int64(-1)
	fields := []*int64{&h.Tokens}
	if buf[0] == leasedOfVersion {
		fields = append(fields, &of, &h.Input, &h.Output)
	}
	for _, field := range fields {
		v, size := binary.Uvarint(rest)
		if size <= 0 || v > 1<<62 {
			return h, false
		}
		*field, rest = int64(v), rest[size:]
	}
	h.of = int(of)
	return h, len(rest) == 0
}

func (h *leasedID) signedWith(secret []byte) bool {
	return hmac.Equal(h.signature, sign(secret, h.signed))
}

func sign(secret, signed []byte) []byte {
	mac := hmac.New(sha256.New, secret)
	mac.Write(signed)
	return mac.Sum(nil)[:signatureBytes]
}
