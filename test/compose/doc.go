// Package compose holds the tests of what is deployed: docker-compose.yml, the Dockerfile,
// deploy/nats.conf, the Helm chart and what a release has. They are parsed with the libraries of
// the projects whose they are, and, since no container engine is needed for it, the NATS
// configuration is run by a real server.
package compose
