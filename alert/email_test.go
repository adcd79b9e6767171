package alert

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http/httptest"
	"net/mail"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"

	"github.com/tidegate/tidegate/budget"
	"github.com/tidegate/tidegate/internal/testenv"
	"github.com/tidegate/tidegate/ledger"
)

// post is an SMTP server.
type post struct {
	mu    sync.Mutex
	mails []string
	to    []string
	users []string
	full  bool
}

func (p *post) NewSession(*smtp.Conn) (smtp.Session, error) { return &session{p}, nil }

type session struct{ *post }

func (s *session) Reset()                               {}
func (s *session) Logout() error                        { return nil }
func (s *session) Mail(string, *smtp.MailOptions) error { return nil }
func (s *session) AuthMechanisms() []string             { return []string{sasl.Plain} }
func (s *session) Auth(string) (sasl.Server, error) {
	return sasl.NewPlainServer(func(_, username, password string) error {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.users = append(s.users, username)
		if password != "correct horse" {
			return errors.New("who is that?")
		}
		return nil
	}), nil
}

func (s *session) Rcpt(to string, _ *smtp.RcptOptions) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.full {
		return &smtp.SMTPError{Code: 452, Message: "mailbox full"}
	}
	s.to = append(s.to, to)
	return nil
}

func (s *session) Data(r io.Reader) error {
	body, err := io.ReadAll(r)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mails = append(s.mails, string(body))
	return err
}

func (p *post) serve(t *testing.T, withTLS, implicit bool) (addr string) {
	t.Helper()
	server := smtp.NewServer(p)
	server.AllowInsecureAuth = true
	cert := httptest.NewTLSServer(nil)
	cert.Close()
	config := &tls.Config{Certificates: cert.TLS.Certificates}
	if withTLS {
		server.TLSConfig = config
	}
	l := testenv.Must(net.Listen("tcp", "127.0.0.1:0"))
	addr = l.Addr().String()
	if implicit {
		l = tls.NewListener(l, config)
	}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { _ = server.Close() })
	return addr
}

// A mail goes out by STARTTLS, to somebody who is signed in as, once it was refused for a while;
// never where others could read it, or to a server that is private without leave.
func TestEmail(t *testing.T) {
	s := newStore(t)
	var p, plain, first post
	addr, open, smtps := p.serve(t, true, false), plain.serve(t, false, false), first.serve(t, false, true)
	t.Setenv("SMTP_PASSWORD", "correct horse")
	t.Setenv("WRONG", "battery staple")
	entry := func(name, addr, more string) string {
		return "  - {name: " + name + ", kind: email, smtp: \"" + addr + "\", from: \"Tidegate <tidegate@example.com>\", to: [a@example.com, B <b@example.com>], " + more + "}\n"
	}
	list := receivers(t, "receivers:\n"+entry("finance", addr, "allow_private: true, username: u, password: env:SMTP_PASSWORD")+
		entry("wrong", addr, "allow_private: true, username: u, password: env:WRONG")+
		entry("open", open, "allow_private: true, username: u, password: env:SMTP_PASSWORD")+
		entry("relay", open, "allow_private: true, plaintext: true")+
		entry("smtps", smtps, "allow_private: true, username: u, password: env:SMTP_PASSWORD")+
		entry("private", addr, "username: u, password: env:SMTP_PASSWORD"))
	list[4].sender.(*mailbox).implicitTLS = true // as on port 465
	p.full = true
	run(t, Config{Ledger: s.Ledger, Receivers: list})
	id := s.reach("marina-7", "each-user", "hard")
	refuses := func(name, want string) {
		t.Helper()
		testenv.Eventually(t, name+" did not take it", func() bool { return s.line(id, name).LastError != "" })
		if l := s.line(id, name); !strings.Contains(l.LastError, want) || strings.Contains(l.LastError, "battery") {
			t.Errorf("%s: %q", name, l.LastError)
		}
	}
	refuses("finance", "mailbox full")
	p.mu.Lock()
	p.full = false
	p.mu.Unlock()
	s.exec("update ai_alert_deliveries set next_attempt = now() where receiver = 'finance'")
	refuses("wrong", "who is that?")
	refuses("open", "STARTTLS")
	refuses("private", "allow_private: true permits")
	testenv.Eventually(t, "it is delivered", func() bool {
		return s.line(id, "finance").DeliveredAt != nil && s.line(id, "relay").DeliveredAt != nil && s.line(id, "smtps").DeliveredAt != nil
	})
	for name, box := range map[string]*post{"finance": &p, "relay": &plain, "smtps": &first} {
		box.mu.Lock()
		defer box.mu.Unlock()
		if len(box.mails) != 1 || strings.Join(box.to, " ") != "a@example.com b@example.com" {
			t.Fatalf("%s: %d mails to %v", name, len(box.mails), box.to)
		}
		m := testenv.Must(mail.ReadMessage(strings.NewReader(box.mails[0])))
		body := testenv.Must(io.ReadAll(m.Body))
		if m.Header.Get("Message-ID") != "<"+id.String()+"@tidegate>" || m.Header.Get("Subject") != "Tidegate: port marina-7 has reached the hard cap of limit each-user for <ada>" ||
			!bytes.Contains(body, []byte("Port marina-7 has reached the hard cap")) || m.Header.Get("Auto-Submitted") == "" && m.Header.Get("Precedence") != "bulk" {
			t.Errorf("%s: %v\n%s", name, m.Header, body)
		}
	}
	if len(p.users) == 0 || len(plain.users) > 0 {
		t.Errorf("signed in: %v, and where others could read it: %v", p.users, plain.users)
	}
}

// Whatever a caller names a user, it ends no line of a header.
func TestNamesEndNoHeader(t *testing.T) {
	t.Parallel()
	b := &mailbox{host: "smtp.example.com", port: 587, from: "t@example.com", to: []string{"a@example.com"}}
	for _, evil := range []string{"x\r\nBcc: all@example.com", "x\nBcc: all@example.com", "x\u2028Bcc: all@example.com", "x\r\n\r\n<script>", "ü\xff\x00", strings.Repeat("long ", 500)} {
		m := newMessage(&ledger.Alert{PortID: "p1", Limit: "each-user", Counter: 7, Value: evil, Period: budget.Hour, Threshold: "hard", PeriodStart: time.Now(), NoticedAt: time.Now()})
		var out bytes.Buffer
		if _, err := testenv.Must(b.mail(&m)).WriteTo(&out); err != nil {
			t.Fatal(err)
		}
		got := testenv.Must(mail.ReadMessage(&out))
		if got.Header.Get("Bcc") != "" || len(got.Header["Subject"]) != 1 || got.Header.Get("To") != "<a@example.com>" {
			t.Errorf("%q: %v", evil, got.Header)
		}
		if text := m.sentence(); strings.ContainsAny(text, "\r\n\x00\u2028") {
			t.Errorf("%q", text)
		}
	}
}
