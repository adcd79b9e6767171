// Package dsn handles the addresses of servers, which may hold passwords and tokens.
package dsn

import (
	"errors"
	"net/url"
	"regexp"
	"strings"
)

const hidden = "xxxxx"

var (
	secretParameter = regexp.MustCompile(`(?i)(password=)[^&\s]*`)
	keywords        = regexp.MustCompile(`(?i)^\s*[a-z_]+\s*=`) // host=… password=…
)

// Redact hides what might be a password or a token in an address, or in a list of
// them with commas between, so that the rest can be shown and logged. It reads less
// strictly than any program that connects: a password with an @, a / or a comma in
// it, which those would cut into pieces, is hidden whole.
func Redact(address string) string {
	if keywords.MatchString(address) {
		return "(a connection string)"
	}
	parts := strings.SplitAfter(address, "://")
	postgres := false
	for i, part := range parts {
		parts[i] = secretParameter.ReplaceAllString(redactOne(part, postgres), "${1}"+hidden)
		postgres = strings.HasSuffix(part, "postgres://") || strings.HasSuffix(part, "postgresql://")
	}
	return strings.Join(parts, "")
}

// redactOne takes what stands between two schemes.
func redactOne(part string, postgres bool) string {
	at := strings.LastIndexByte(part, '@')
	if at < 0 {
		return part
	}
	user, _, hasPassword := strings.Cut(part[:at], ":")
	if !hasPassword && postgres {
		return part
	}
	if !hasPassword { // NATS takes a token in place of the user
		return hidden + part[at:]
	}
	return user + ":" + hidden + part[at:]
}

// Check reports why an address cannot be meant as it is written: its password holds a
// character that ends the part of a URL that passwords stand in, so that a piece of the
// password would be taken for a path. The error holds no secret.
func Check(address string) error {
	_, rest, isURL := strings.Cut(address, "://")
	if !isURL {
		if keywords.MatchString(address) {
			return nil
		}
		rest = address
	}
	end := strings.IndexAny(rest, "/?#")
	if end < 0 {
		return nil
	}
	authority, tail := rest[:end], rest[end:]
	path, query, _ := strings.Cut(tail, "?")
	parameter, _, _ := strings.Cut(query, "=")
	_, port, _ := strings.Cut(authority, ":")
	if strings.Contains(path+parameter, "@") ||
		strings.Contains(tail, "@") && !strings.Contains(authority, "@") && strings.Trim(port, "0123456789") != "" && !strings.HasPrefix(authority, "[") {
		return errUnreadable
	}
	return nil
}

// CheckList is [Check] for addresses with commas between, each of which must be a URL or
// host:port.
func CheckList(list string) error {
	for address := range strings.SplitSeq(list, ",") {
		address = strings.TrimSpace(address)
		if !strings.Contains(address, "://") {
			address = "nats://" + address
		}
		if _, err := url.Parse(address); err != nil || Check(address) != nil { // err holds the address
			return errUnreadable
		}
	}
	return nil
}

// errUnreadable shows nothing of the address: where its password begins is anybody's guess.
var errUnreadable = errors.New("the address cannot be read: is it scheme://user:password@host:port? " +
	"In a password, write % / ? # @ : and , as %25 %2F %3F %23 %40 %3A and %2C, and a space as %20")
