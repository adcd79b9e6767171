//go:build !killpoint

// Package killpoint lets a test kill the real binary, or make it panic, at a chosen
// line. Only a binary built with the tag "killpoint" can be killed so; in every other one
// Here is empty and compiled away.
package killpoint

// Here does nothing.
func Here(string) {}
