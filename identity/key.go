package identity

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/tidegate/tidegate/internal/private"
)

// KeyBytes is the length of the key that signs sessions and login links.
const KeyBytes = 32

// LoadKey reads the key file at path. A file that does not exist yet is made, with
// a random key that its owner alone can read; processes that start at the same
// moment all get the same one. A file that others can read or write is refused; the
// group may read it, for a service that runs as another user and knows the same
// sessions. Deleting the file, and starting anew, ends every session there is.
func LoadKey(path string) ([]byte, error) {
	err := private.CheckDir(filepath.Dir(path))
	if err == nil {
		err = private.Check(path, private.GroupRead)
	}
	if errors.Is(err, fs.ErrNotExist) {
		if err := makeKey(path); err != nil {
			return nil, fmt.Errorf("identity: making the session key: %w", err)
		}
		err = nil
	}
	if err != nil {
		return nil, fmt.Errorf("identity: the session key: %w", err)
	}
	key, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("identity: reading the session key: %w", err)
	}
	if len(key) != KeyBytes {
		return nil, fmt.Errorf("identity: the session key %s holds %d bytes and must hold %d: delete it, and a new one is made (everyone signs in again)", path, len(key), KeyBytes)
	}
	return key, nil
}

// makeKey writes the key under another name first and links it: the file is there
// whole or not at all, and the first process wins.
func makeKey(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	key := make([]byte, KeyBytes)
	rand.Read(key) // never fails: crypto/rand ends the process rather
	draft, err := private.Draft(path, key)
	if err != nil {
		return err
	}
	defer os.Remove(draft)
	if err := os.Link(draft, path); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

// seal signs what a browser keeps for us. Each purpose has a key of its own, so
// that nothing sealed for one opens for another.
type seal struct{ key []byte }

func newSeal(key []byte, purpose string) (seal, error) {
	if len(key) < KeyBytes {
		return seal{}, fmt.Errorf("identity: the key has %d bytes and needs at least %d; LoadKey makes one", len(key), KeyBytes)
	}
	derived, err := hkdf.Key(sha256.New, key, nil, "tidegate "+purpose+" v1", KeyBytes)
	return seal{key: derived}, err
}

func (s seal) mac(payload []byte) []byte {
	h := hmac.New(sha256.New, s.key)
	h.Write(payload)
	return h.Sum(nil)
}

// close returns payload and signature in a form that cookies and URLs can hold.
func (s seal) close(payload []byte) string {
	return base64.RawURLEncoding.EncodeToString(payload) + "." + base64.RawURLEncoding.EncodeToString(s.mac(payload))
}

// open returns the payload of a value that close made and nobody has changed.
func (s seal) open(value string) ([]byte, bool) {
	head, tail, found := strings.Cut(value, ".")
	strict := base64.RawURLEncoding.Strict()
	payload, err1 := strict.DecodeString(head)
	mac, err2 := strict.DecodeString(tail)
	if !found || err1 != nil || err2 != nil || !hmac.Equal(mac, s.mac(payload)) {
		return nil, false
	}
	return payload, true
}
