package alert

import (
	"errors"
	"fmt"
	"net"
	"net/mail"
	"net/url"
	"os"
	"regexp"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/tidegate/tidegate/budget"
	"github.com/tidegate/tidegate/events"
)

// entry is a receiver as the file has it. See docs/alerts.md.
type entry struct {
	Name         string   `yaml:"name"`
	Kind         string   `yaml:"kind"`
	URL          string   `yaml:"url"`
	Secret       string   `yaml:"secret"`
	SMTP         string   `yaml:"smtp"`
	Username     string   `yaml:"username"`
	Password     string   `yaml:"password"`
	From         string   `yaml:"from"`
	To           []string `yaml:"to"`
	Plaintext    bool     `yaml:"plaintext"`
	AllowPrivate bool     `yaml:"allow_private"`
	Ports        []string `yaml:"ports"`
	Limits       []string `yaml:"limits"`
	Caps         []string `yaml:"caps"`
}

const (
	maxFile      = 1 << 20
	maxReceivers = 100
	maxTo        = 50
)

var validName = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

// ReadFile reads the receivers that a YAML file names. Its errors name the line.
func ReadFile(path string) ([]*Receiver, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if len(text) > maxFile {
		return nil, fmt.Errorf("%s: is %d bytes long: at most %d are read", path, len(text), maxFile)
	}
	list, err := parse(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return list, nil
}

func parse(text []byte) ([]*Receiver, error) {
	file, err := parser.ParseBytes(text, 0)
	if err != nil {
		return nil, inYAML(err)
	}
	if len(file.Docs) != 1 || file.Docs[0].Body == nil {
		return nil, errors.New("must be one YAML document with a list of receivers")
	}
	var all struct {
		Receivers []entry `yaml:"receivers"`
	}
	if err := yaml.NodeToValue(file.Docs[0].Body, &all, yaml.Strict()); err != nil {
		return nil, inYAML(err)
	}
	if len(all.Receivers) == 0 || len(all.Receivers) > maxReceivers {
		return nil, fmt.Errorf("receivers: must be 1 to %d, not %d", maxReceivers, len(all.Receivers))
	}
	var list []*Receiver
	names := map[string]bool{}
	for i, e := range all.Receivers {
		r, field, err := e.receiver()
		if err == nil && names[e.Name] {
			field, err = "name", fmt.Errorf("there is another receiver %s", e.Name)
		}
		if err != nil {
			return nil, fmt.Errorf("line %d: receiver %s: %s: %w", lineOf(file, i, field), e.Name, field, err)
		}
		names[e.Name] = true
		list = append(list, r)
	}
	return list, nil
}

// inYAML leaves out the lines around the error, which may have secrets.
func inYAML(err error) error {
	var at yaml.Error
	if !errors.As(err, &at) {
		return err
	}
	return fmt.Errorf("line %d: %s", at.GetToken().Position.Line, at.GetMessage())
}

func lineOf(file *ast.File, receiver int, field string) int {
	for _, path := range []string{fmt.Sprintf("$.receivers[%d].%s", receiver, field), fmt.Sprintf("$.receivers[%d]", receiver), "$"} {
		if p, err := yaml.PathString(path); err == nil {
			if node, err := p.FilterFile(file); err == nil && node != nil {
				return node.GetToken().Position.Line
			}
		}
	}
	return 1
}

// receiver makes what the entry says, or names the field that is wrong.
func (e *entry) receiver() (r *Receiver, field string, err error) {
	if !validName.MatchString(e.Name) {
		return nil, "name", errors.New("must be 1 to 64 letters, digits, - or _")
	}
	for _, c := range e.Caps {
		if c != budget.AtSoft && c != budget.AtHard && c != events.AlertAt {
			return nil, "caps", fmt.Errorf("%q is none: there are soft, hard and alert_at", c)
		}
	}
	r = &Receiver{Name: e.Name, ports: e.Ports, limits: e.Limits, caps: e.Caps}
	isMail := e.Kind == "email"
	for _, f := range []struct {
		field        string
		given, fits  bool
		kindsThatFit string
	}{
		{"url", e.URL != "", !isMail, "webhook and slack"},
		{"secret", e.Secret != "", e.Kind == "webhook", "webhook"},
		{"smtp", e.SMTP != "", isMail, "email"}, {"username", e.Username != "", isMail, "email"}, {"password", e.Password != "", isMail, "email"},
		{"from", e.From != "", isMail, "email"}, {"to", e.To != nil, isMail, "email"}, {"plaintext", e.Plaintext, isMail, "email"},
	} {
		if f.given && !f.fits {
			return nil, f.field, fmt.Errorf("is for the kind %s only", f.kindsThatFit)
		}
	}
	switch e.Kind {
	case "webhook", "slack":
		field, err = e.hook(r)
	case "email":
		field, err = e.mailbox(r)
	default:
		field, err = "kind", fmt.Errorf("%q is none: there are webhook, slack and email", e.Kind)
	}
	return r, field, err
}

func (e *entry) hook(r *Receiver) (field string, err error) {
	address, err := secret(e.URL, true)
	if err != nil {
		return "url", err
	}
	u, err := url.Parse(address)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http": // which may be a secret
		return "url", errors.New("must be an address such as https://example.com/path, or env:NAME or file:PATH of one")
	case u.Scheme == "http" && !e.AllowPrivate:
		return "url", errors.New("must begin with https: others can read what http sends (allow_private: true permits it)")
	}
	h := &hook{url: address, client: newClient(e.AllowPrivate)}
	r.sender, r.Where = h, u.Scheme+"://"+u.Host
	if e.Kind == "slack" {
		return "", nil
	}
	text, err := secret(e.Secret, false)
	if err != nil {
		return "secret", err
	}
	for _, one := range strings.Fields(text) {
		key, err := standardwebhooks.NewWebhook(one)
		if encoded, found := strings.CutPrefix(one, "whsec_"); err != nil || !found || len(encoded) < 32 {
			return "secret", errors.New("must be whsec_ and at least 24 bytes in base64, such as from: echo whsec_$(openssl rand -base64 32)")
		}
		h.keys = append(h.keys, key)
	}
	return "", nil
}

func (e *entry) mailbox(r *Receiver) (field string, err error) {
	host, portText, err := net.SplitHostPort(e.SMTP)
	port, notNumber := strconv.Atoi(portText)
	if err != nil || notNumber != nil || host == "" || port < 1 || port > 65535 {
		return "smtp", errors.New("must be host:port, such as smtp.example.com:587")
	}
	b := &mailbox{host: host, port: port, username: e.Username, from: e.From, to: e.To, plaintext: e.Plaintext, implicitTLS: port == smtps, allowPrivate: e.AllowPrivate}
	if e.Username != "" || e.Password != "" {
		if b.password, err = secret(e.Password, false); err != nil {
			return "password", err
		}
	}
	switch {
	case b.password != "" && b.username == "":
		return "username", errors.New("is required beside a password")
	case b.plaintext && (b.username != "" || !b.allowPrivate || port == smtps):
		return "plaintext", fmt.Errorf("needs allow_private: true, another port than %d, and neither username nor password, which others could read", smtps)
	case len(e.To) == 0 || len(e.To) > maxTo:
		return "to", fmt.Errorf("must be 1 to %d addresses", maxTo)
	}
	if _, err := mail.ParseAddress(e.From); err != nil {
		return "from", fmt.Errorf("must be an address, such as Tidegate <tidegate@example.com>: %w", err)
	}
	for _, to := range e.To {
		if _, err := mail.ParseAddress(to); err != nil {
			return "to", fmt.Errorf("%q must be an address: %w", to, err)
		}
	}
	r.sender, r.Where = b, strings.Join(e.To, ", ")
	return "", nil
}

// secret reads env:NAME and file:PATH. Anything else is the text itself where that is allowed.
func secret(text string, itself bool) (string, error) {
	kind, where, _ := strings.Cut(text, ":")
	switch {
	case text == "":
		return "", errors.New("is required")
	case kind == "env":
		if text = os.Getenv(where); text == "" {
			return "", fmt.Errorf("the environment variable %s is not set", where)
		}
	case kind == "file":
		read, err := os.ReadFile(where)
		if err != nil {
			return "", err
		}
		text = string(read)
	case !itself:
		return "", errors.New("must be env:NAME or file:PATH: a secret does not belong in this file")
	}
	return strings.TrimSpace(text), nil
}
