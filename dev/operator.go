package dev

import (
	"crypto/rand"
	_ "embed"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/tidegate/tidegate/internal/private"
)

//go:embed nats.conf
var natsConf string

const (
	operatorFile = "operator.url" // in the store's directory
	operatorUser = "operator"     // of nats.conf

	passwordBytes = 32
)

// OperatorURL reads the address, password included, with which an operator reaches the
// server of [StartNATS] whose store is in dir. It is an error if no server runs there: the
// port may be another user's by now, who would learn the password.
func OperatorURL(dir string) (string, error) {
	lock, err := os.Open(filepath.Join(dir, lockName))
	if err != nil {
		return "", err
	}
	defer lock.Close()
	if syscall.Flock(int(lock.Fd()), syscall.LOCK_SH|syscall.LOCK_NB) == nil {
		return "", fmt.Errorf("no NATS runs in %s", dir)
	}
	operator, err := readOperator(dir)
	if err != nil {
		return "", err
	}
	return operator.String(), nil
}

func readOperator(dir string) (*url.URL, error) {
	path := filepath.Join(dir, operatorFile)
	if err := private.Check(path, private.NoAccess); err != nil {
		return nil, err
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	operator, err := url.Parse(strings.TrimSpace(string(content)))
	if err == nil {
		if password, _ := operator.User.Password(); len(password) >= base64.RawURLEncoding.EncodedLen(passwordBytes) {
			return operator, nil
		}
	}
	return nil, fmt.Errorf("%s holds no operator's address: delete it, and the next start makes a new one", path)
}

// operatorPassword is the one in dir's file, or a new one.
func operatorPassword(dir string) (string, error) {
	operator, err := readOperator(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return newPassword(), nil
	}
	if err != nil {
		return "", fmt.Errorf("dev: the operator's credential: %w", err)
	}
	password, _ := operator.User.Password()
	return password, nil
}

func newPassword() string {
	secret := make([]byte, passwordBytes)
	rand.Read(secret) // never fails: crypto/rand ends the process rather
	return base64.RawURLEncoding.EncodeToString(secret)
}

// permit gives the server its two users.
func permit(options *server.Options, operatorPassword string) error {
	return options.ProcessConfigString(fmt.Sprintf("OPERATOR_PASSWORD: %q\n%s", operatorPassword, natsConf))
}

// takeOver brings a store of the time before the server had users where their account looks for it.
func takeOver(dir string) error {
	before, now := filepath.Join(dir, "jetstream", "$G"), filepath.Join(dir, "jetstream", "TIDEGATE")
	if _, err := os.Stat(now); !errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err := os.Rename(before, now); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("dev: %w", err)
	}
	return nil
}
