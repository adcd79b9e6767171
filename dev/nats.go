package dev

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/tidegate/tidegate/internal/private"
)

// DefaultNATSAddr is where the embedded server listens unless told otherwise.
const DefaultNATSAddr = "127.0.0.1:4222"

// natsStartTimeout bounds the start. It covers the recovery of large streams.
const natsStartTimeout = 2 * time.Minute

// NATSConfig configures [StartNATS].
type NATSConfig struct {
	// Dir holds the JetStream store; it is made when missing. Required.
	Dir string
	// Addr is host:port to listen on, default [DefaultNATSAddr]. The host must be
	// a loopback address, because the embedded server asks services for no password.
	// Port 0 or -1 takes a free one.
	Addr string
	// Logger gets the server's log; its notices become debug records. Default
	// [slog.Default].
	Logger *slog.Logger
}

// NATS is a running embedded nats-server.
type NATS struct {
	server   *server.Server
	lock     *os.File
	dir      string // the store
	addr     string // where it listens
	password string // the operator's
}

// StartNATS starts a nats-server with JetStream inside this process. Every
// acknowledged message is on disk (sync always), so the store survives kill -9
// and power failure. The server ends with [NATS.Shutdown]; signals are the
// caller's.
//
// Whoever connects without a user may do what services do, for any port: report calls,
// ask, reserve, read. The user operator may do everything; its address is in a file of
// Dir that only this user can read ([OperatorURL]).
func StartNATS(cfg NATSConfig) (*NATS, error) {
	if cfg.Dir == "" {
		return nil, errors.New("dev: NATSConfig.Dir is required")
	}
	host, port, err := listenAddr(cfg.Addr)
	if err != nil {
		return nil, err
	}
	dir, err := filepath.Abs(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("dev: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("dev: make the NATS store: %w", err)
	}
	if err := private.CheckDir(dir); err != nil {
		return nil, fmt.Errorf("dev: the NATS store: %w", err)
	}
	lock, err := lockDir(dir)
	if err != nil {
		return nil, err
	}
	n := &NATS{lock: lock, dir: dir}
	if err := n.start(host, port, cfg.Logger); err != nil {
		n.Shutdown()
		return nil, err
	}
	return n, nil
}

func (n *NATS) start(host string, port int, logger *slog.Logger) error {
	if err := portIsFree(host, port); err != nil {
		return err
	}
	var err error
	if n.password, err = operatorPassword(n.dir); err != nil {
		return err
	}
	options := &server.Options{
		ServerName: "tidegate",
		Host:       host,
		Port:       port,
		JetStream:  true,
		StoreDir:   n.dir,
		SyncAlways: true, // the default, every two minutes, loses acknowledged messages
		NoSigs:     true,
	}
	if err = permit(options, n.password); err == nil {
		n.server, err = server.NewServer(options)
	}
	if err != nil {
		return fmt.Errorf("dev: configure nats-server: %w", err)
	}
	if err := takeOver(n.dir); err != nil {
		return err
	}
	log := newNATSLog(logger)
	n.server.SetLoggerV2(log, false, false, false)
	n.server.Start()

	deadline := time.After(natsStartTimeout)
	for !n.server.ReadyForConnections(50 * time.Millisecond) {
		select {
		case msg := <-log.fatal:
			return fmt.Errorf("dev: nats-server cannot start in %s: %s", n.dir, msg)
		case <-deadline:
			return fmt.Errorf("dev: nats-server is not ready after %s (store %s)", natsStartTimeout, n.dir)
		default:
		}
	}
	if !n.server.JetStreamEnabled() {
		return fmt.Errorf("dev: nats-server runs without JetStream (store %s); its log says why", n.dir)
	}
	n.addr = n.server.Addr().String()
	if err := private.Write(n.OperatorFile(), []byte(n.ClientURL()+"\n")); err != nil {
		return fmt.Errorf("dev: the operator's credential: %w", err)
	}
	return nil
}

// Addr is host:port, where it listens.
func (n *NATS) Addr() string { return n.addr }

// ServiceURL is the address for services on this machine.
func (n *NATS) ServiceURL() string { return "nats://" + n.addr }

// ClientURL is the address for clients that may do everything: it holds the operator's password.
func (n *NATS) ClientURL() string {
	return "nats://" + operatorUser + ":" + n.password + "@" + n.addr
}

// OperatorFile holds what ClientURL returns; its owner alone can read it.
func (n *NATS) OperatorFile() string { return filepath.Join(n.dir, operatorFile) }

// InProcess makes a connection go to this server without a socket, whatever its
// URL says.
func (n *NATS) InProcess() nats.Option { return nats.InProcessServer(n.server) }

// Conn connects within the process, without a socket. The caller closes it.
func (n *NATS) Conn(opts ...nats.Option) (*nats.Conn, error) {
	nc, err := nats.Connect(n.ClientURL(), append(opts, nats.InProcessServer(n.server))...)
	if err != nil {
		return nil, fmt.Errorf("dev: connect to the embedded nats-server: %w", err)
	}
	return nc, nil
}

// Shutdown ends the server and returns when it has: the store is closed and the
// port free. Clients are disconnected and reconnect by themselves later; what
// was acknowledged to them is on disk. A second call does nothing.
func (n *NATS) Shutdown() {
	if n.server != nil {
		n.server.Shutdown()
		n.server.WaitForShutdown()
	}
	unlock(n.lock)
}

func listenAddr(addr string) (host string, port int, err error) {
	if addr == "" {
		addr = DefaultNATSAddr
	}
	host, p, err := net.SplitHostPort(addr)
	if err != nil {
		return "", 0, fmt.Errorf("dev: NATS address %q must be host:port, like %s (--nats-addr)", addr, DefaultNATSAddr)
	}
	port, err = strconv.Atoi(p)
	if err != nil || port < -1 || port > 65535 {
		return "", 0, fmt.Errorf("dev: NATS address %q: the port must be a number from 0 to 65535, 0 taking a free one (--nats-addr)", addr)
	}
	if host == "localhost" {
		host = "127.0.0.1"
	}
	if ip := net.ParseIP(host); ip == nil || !ip.IsLoopback() {
		return "", 0, fmt.Errorf("dev: the embedded NATS server asks services for no password, so it listens on loopback only, not on %q: "+
			"use --nats-addr 127.0.0.1:%d, or run a server with passwords as docker-compose.yml does and name it with --nats-url", host, port)
	}
	if port == 0 {
		port = server.RANDOM_PORT
	}
	return host, port, nil
}

// portIsFree turns the commonest failure into words before the server starts:
// the server itself only logs it.
func portIsFree(host string, port int) error {
	if port == server.RANDOM_PORT {
		return nil
	}
	addr := net.JoinHostPort(host, strconv.Itoa(port))
	l, err := net.Listen("tcp", addr)
	switch {
	case err == nil:
		return l.Close()
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("dev: %s is taken by another program (an older NATS or Tidegate?): stop it, "+
			"choose another port with --nats-addr 127.0.0.1:0, or use the server that runs there with --nats-url nats://%s", addr, addr)
	default:
		return fmt.Errorf("dev: listen on %s (--nats-addr): %w", addr, err)
	}
}
