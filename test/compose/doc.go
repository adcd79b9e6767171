// Package compose holds the tests of docker-compose.yml, the Dockerfile and
// deploy/nats.conf: parsed with the Compose project's own library, and, since no
// container engine is needed for it, with a real NATS server that runs the
// configuration.
package compose
