package alert

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"

	"code.dny.dev/ssrf"
	"github.com/wneessen/go-mail"
)

// mailbox sends by SMTP.
type mailbox struct {
	host               string
	port               int
	username, password string // "": it does not sign in
	from               string
	to                 []string
	plaintext          bool
	implicitTLS        bool // from the first byte; else the server must offer STARTTLS
	allowPrivate       bool
}

// smtps is the port on which servers speak TLS from the first byte.
const smtps = 465

func (b *mailbox) send(ctx context.Context, m *message) (string, error) {
	sending, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	msg, err := b.mail(m)
	if err != nil {
		return "", err
	}
	// The library closes the connection of a conversation that succeeds, and no other.
	var conn net.Conn
	defer func() {
		if conn != nil {
			_ = conn.Close()
		}
	}()
	client, err := b.client(func(ctx context.Context, network, addr string) (c net.Conn, err error) {
		if c, err = dialer(b.allowPrivate).DialContext(ctx, network, addr); err != nil {
			return nil, err
		}
		conn = c
		context.AfterFunc(sending, func() { _ = c.Close() }) // ctx ends with the greeting
		if b.implicitTLS {
			return tls.Client(c, &tls.Config{ServerName: b.host}), nil
		}
		return c, nil
	})
	if err != nil {
		return "", err
	}
	server, err := client.DialToSMTPClientWithContext(sending)
	if err == nil {
		err = client.SendWithSMTPClient(server, msg)
	}
	switch {
	case msg.IsDelivered(): // what went wrong came after the server had taken it
		return fmt.Sprintf("%s took it for %s", b.host, strings.Join(b.to, ", ")), nil
	case sending.Err() != nil:
		return "", fmt.Errorf("it did not take the mail within %s", sendTimeout)
	case errors.Is(err, ssrf.ErrProhibitedIP):
		err = fmt.Errorf("%w (allow_private: true permits that)", err)
	}
	return "", errors.New(oneLine(err.Error()))
}

func (b *mailbox) client(dial mail.DialContextFunc) (*mail.Client, error) {
	options := []mail.Option{mail.WithPort(b.port), mail.WithTimeout(sendTimeout), mail.WithDialContextFunc(dial)}
	switch {
	case b.implicitTLS:
		// The dialer has made it TLS already. With its own option for that, the library does not know so, and does not sign in.
		options = append(options, mail.WithTLSPolicy(mail.TLSOpportunistic))
	case b.plaintext:
		options = append(options, mail.WithTLSPolicy(mail.NoTLS))
	default:
		options = append(options, mail.WithTLSPolicy(mail.TLSMandatory))
	}
	if b.username != "" {
		options = append(options, mail.WithSMTPAuth(mail.SMTPAuthAutoDiscover), mail.WithUsername(b.username), mail.WithPassword(b.password))
	}
	return mail.NewClient(b.host, options...)
}

// mail is the message as a mail. The id is the alert's, so that whoever gets it twice can see that.
func (b *mailbox) mail(m *message) (*mail.Msg, error) {
	msg := mail.NewMsg()
	if err := errors.Join(msg.From(b.from), msg.To(b.to...)); err != nil {
		return nil, err
	}
	msg.Subject(m.subject())
	msg.SetMessageIDWithValue(m.Data.ID.String() + "@tidegate")
	msg.SetBulk()
	msg.SetDateWithValue(m.Timestamp)
	msg.SetBodyString(mail.TypeTextPlain, m.sentence()+"\n\n"+string(m.json())+"\n")
	return msg, nil
}
