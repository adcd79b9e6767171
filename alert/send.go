package alert

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"code.dny.dev/ssrf"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

const (
	sendTimeout = 15 * time.Second // for one attempt, the answer included
	answerBytes = 1 << 10          // that are read of it
	saidBytes   = 200              // that are kept of it
)

// sender makes one attempt. It returns what the receiver said.
type sender interface {
	send(ctx context.Context, m *message) (said string, err error)
}

// refusal is an answer other than yes.
type refusal struct {
	why   string
	later time.Duration // that the receiver asks to wait; 0: it does not
	never bool          // another attempt is unwelcome
}

func (r *refusal) Error() string { return r.why }

// hook sends by HTTP.
type hook struct {
	url    string
	client *http.Client
	keys   []*standardwebhooks.Webhook // that sign; nil: Slack
}

// dialer connects to public addresses only, unless private ones are allowed. What a name
// resolves to is checked when it connects, so that it cannot change in between.
func dialer(allowPrivate bool) *net.Dialer {
	d := &net.Dialer{Timeout: 5 * time.Second}
	if !allowPrivate {
		d.Control = ssrf.New(ssrf.WithAnyPort()).Safe
	}
	return d
}

// newClient goes through no proxy, since that would connect in its place, and follows no redirect.
func newClient(allowPrivate bool) *http.Client {
	return &http.Client{
		Timeout:       sendTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{DialContext: dialer(allowPrivate).DialContext, ForceAttemptHTTP2: true, TLSHandshakeTimeout: 5 * time.Second,
			MaxResponseHeaderBytes: 64 << 10, MaxIdleConnsPerHost: atOnce, IdleConnTimeout: time.Minute},
	}
}

func (h *hook) send(ctx context.Context, m *message) (string, error) {
	body := m.json()
	if h.keys == nil {
		body = slackBody(m)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, h.url, bytes.NewReader(body))
	if err != nil {
		return "", withoutURL(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "tidegate")
	if err := h.sign(req.Header, m.Data.ID.String(), time.Now(), body); err != nil {
		return "", err
	}
	resp, err := h.client.Do(req)
	if err != nil {
		return "", withoutURL(err)
	}
	defer resp.Body.Close()
	read, _ := io.ReadAll(io.LimitReader(resp.Body, answerBytes))
	said := oneLine(strings.TrimSpace(string(read)))
	if len(said) > saidBytes {
		said = strings.ToValidUTF8(said[:saidBytes], "") + "…"
	}
	said = strings.TrimSuffix(fmt.Sprintf("%s: %s", resp.Status, said), ": ")
	switch {
	case resp.StatusCode/100 == 2:
		return said, nil
	case resp.StatusCode/100 == 3:
		said += " (redirects are not followed: give the receiver the address that it redirects to)"
	}
	return "", &refusal{why: "it answered " + said, later: retryAfter(resp.Header.Get("Retry-After"), time.Now()), never: resp.StatusCode == http.StatusGone}
}

// sign adds the headers of Standard Webhooks, with a signature by each secret: while the
// receiver changes its secret it may know either.
func (h *hook) sign(header http.Header, id string, now time.Time, body []byte) error {
	var signatures []string
	for _, key := range h.keys {
		signature, err := key.Sign(id, now, body)
		if err != nil {
			return err
		}
		signatures = append(signatures, signature)
	}
	if signatures != nil {
		header.Set(standardwebhooks.HeaderWebhookID, id)
		header.Set(standardwebhooks.HeaderWebhookTimestamp, strconv.FormatInt(now.Unix(), 10))
		header.Set(standardwebhooks.HeaderWebhookSignature, strings.Join(signatures, " "))
	}
	return nil
}

// slackBody escapes what Slack would take for a mention or a link.
func slackBody(m *message) []byte {
	text := strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;").Replace(m.sentence())
	body, err := json.Marshal(map[string]string{"text": text})
	if err != nil {
		panic(err) // it is a text
	}
	return body
}

// withoutURL is the error without the address, which may be a secret by itself, as Slack's are.
func withoutURL(err error) error {
	var of *url.Error
	if !errors.As(err, &of) {
		return err
	}
	if of.Timeout() {
		return fmt.Errorf("it did not answer within %s", sendTimeout)
	}
	if errors.Is(err, ssrf.ErrProhibitedIP) {
		return fmt.Errorf("%w (allow_private: true permits that)", of.Err)
	}
	return of.Err
}

// retryAfter reads the header: seconds, or a time.
func retryAfter(header string, now time.Time) time.Duration {
	if seconds, err := strconv.ParseInt(header, 10, 32); err == nil {
		return max(time.Duration(seconds)*time.Second, 0)
	}
	if at, err := http.ParseTime(header); err == nil {
		return max(at.Sub(now), 0)
	}
	return 0
}
