package reservation

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"

	"github.com/google/uuid"
)

// The id of a hold made from a lease says which one it is and how much it holds,
// signed with the lease's secret: base64url of
//
//	version, lease (16 bytes), number (2 bytes), tokens (uvarint), signature (12 bytes)
//
// The id of any other hold is a UUID.

const (
	leasedVersion  = 1
	signatureBytes = 12
)

type leasedID struct {
	lease     uuid.UUID
	n         int // which hold of the lease, counted from 0
	tokens    int64
	signed    []byte
	signature []byte
}

// HoldID is the reservation id of the nth hold of the lease, counted from 0.
func (l *Lease) HoldID(n int, tokens int64) string {
	buf := make([]byte, 0, 1+16+2+binary.MaxVarintLen64+signatureBytes)
	buf = append(append(buf, leasedVersion), l.ID[:]...)
	buf = binary.BigEndian.AppendUint16(buf, uint16(n))
	buf = binary.AppendUvarint(buf, uint64(tokens))
	return base64.RawURLEncoding.EncodeToString(append(buf, sign(l.secret, buf)...))
}

// parseLeasedID reads an id that [Lease.HoldID] may have made. Whether it did, only
// the lease's secret tells.
func parseLeasedID(id string) (h leasedID, ok bool) {
	buf, err := base64.RawURLEncoding.Strict().DecodeString(id)
	if err != nil || len(buf) < 1+16+2+1+signatureBytes || buf[0] != leasedVersion {
		return h, false
	}
	h.signed, h.signature = buf[:len(buf)-signatureBytes], buf[len(buf)-signatureBytes:]
	h.lease = uuid.UUID(buf[1:17])
	h.n = int(binary.BigEndian.Uint16(buf[17:19]))
	tokens, size := binary.Uvarint(h.signed[19:])
	if size != len(h.signed)-19 || tokens > 1<<62 {
		return h, false
	}
	h.tokens = int64(tokens)
	return h, true
}

func (h *leasedID) signedWith(secret []byte) bool {
	return hmac.Equal(h.signature, sign(secret, h.signed))
}

func sign(secret, signed []byte) []byte {
	mac := hmac.New(sha256.New, secret)
	mac.Write(signed)
	return mac.Sum(nil)[:signatureBytes]
}
