// Package cluster holds the tests of deploy/cluster: three nats-servers and two Postgres as
// its files make them, two Tidegate processes on them, and what becomes of it all when a
// part dies, freezes or is replaced.
package cluster
