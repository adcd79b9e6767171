// Package dev runs the two servers Tidegate needs on a machine that has none
// configured: a nats-server inside this process and a private Postgres cluster
// beside it, both with their data in one directory.
//
// Both are durable: an acknowledged message and a committed row survive kill -9
// and power failure. Both serve this machine only: NATS listens on loopback, and
// Postgres on a Unix socket that only its owner (and root) can reach.
package dev
