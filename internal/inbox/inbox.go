// Package inbox guards services against a requester that names somebody else's
// subject, such as JetStream's API, as the place for the answer.
package inbox

import "strings"

// Allowed reports whether reply is where answers may go: a client's inbox, or the
// subject by which a server carries an answer into another account.
func Allowed(reply string) bool {
	return strings.HasPrefix(reply, "_INBOX.") || strings.HasPrefix(reply, "_R_.")
}
