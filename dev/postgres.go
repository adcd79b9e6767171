package dev

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"github.com/jackc/pgx/v5"
)

// PostgresConfig configures [StartPostgres].
type PostgresConfig struct {
	// Dir holds the cluster (Dir/data) and its socket; it is made when missing.
	// Required. A cluster that is there is used as it is and never deleted.
	Dir string
	// Logger gets the server's log; what is not a warning becomes a debug record.
	// Default [slog.Default].
	Logger *slog.Logger
	// NoSync leaves writes to the operating system: a crash of the machine destroys
	// the cluster, a crash of Postgres does not. For tests only.
	NoSync bool
}

// Postgres is a running private cluster. When its server dies by itself it is
// started again, after 100 ms at first and at most 5 s.
type Postgres struct {
	cfg          PostgresConfig
	dir          string // absolute
	data         string
	socket       string // its directory
	log          *slog.Logger
	owner        owner
	installation installation
	lz4          bool
	lock         *os.File

	wake chan struct{} // wanted or closing changed
	done chan struct{} // the supervisor has ended

	mu       sync.Mutex
	server   *pgServer // the one running, nil when none is
	wanted   bool
	closing  bool
	failures int   // starts in a row that did not get ready
	failure  error // the last of them
}

// StartPostgres starts the private cluster in cfg.Dir, making it first when there
// is none, and returns when it answers: after a crash that includes recovery.
// A server that an earlier, killed process left running there is stopped first.
//
// Postgres refuses to run as root. Under root it runs as the owner of the cluster,
// a new one belonging to user postgres, or nobody where there is none.
//
// It returns [ErrNoPostgres] when no server is installed. It refuses a cluster of
// another major version, and one that another process uses.
func StartPostgres(ctx context.Context, cfg PostgresConfig) (*Postgres, error) {
	p, err := newPostgres(cfg)
	if err != nil {
		return nil, err
	}
	if err := p.prepare(ctx); err != nil {
		unlock(p.lock)
		return nil, err
	}
	go p.supervise()
	err = p.up(ctx)
	if err == nil {
		err = p.createDatabase(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, p.Stop(context.WithoutCancel(ctx)))
	}
	return p, nil
}

func newPostgres(cfg PostgresConfig) (*Postgres, error) {
	if cfg.Dir == "" {
		return nil, errors.New("dev: PostgresConfig.Dir is required")
	}
	dir, err := filepath.Abs(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("dev: %w", err)
	}
	p := &Postgres{
		cfg: cfg, dir: dir, data: filepath.Join(dir, "data"), log: orDefault(cfg.Logger).With("from", "postgres"),
		wake: make(chan struct{}, 1), done: make(chan struct{}),
	}
	if p.owner, err = findOwner(p.data); err != nil {
		return nil, err
	}
	if p.installation, err = choose(p.data); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("dev: make the Postgres directory: %w", err)
	}
	if p.lock, err = lockDir(dir); err != nil {
		return nil, err
	}
	return p, nil
}

func (p *Postgres) prepare(ctx context.Context) error {
	if err := p.stopOrphan(ctx); err != nil {
		return err
	}
	if err := p.initialize(ctx); err != nil {
		return err
	}
	p.lz4 = p.knows(ctx, "wal_compression=lz4")
	return p.prepareSocket()
}

func (p *Postgres) createDatabase(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, p.DatabaseURL("postgres"))
	if err != nil {
		return fmt.Errorf("dev: %w", err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	var there bool
	if err := conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)", superuser).Scan(&there); err != nil {
		return fmt.Errorf("dev: %w", err)
	}
	if there {
		return nil
	}
	if _, err := conn.Exec(ctx, "CREATE DATABASE "+superuser); err != nil {
		return fmt.Errorf("dev: %w", err)
	}
	return nil
}

// Stop ends the server and returns when it has: sessions are cut, everything
// committed is on disk. When ctx ends first it is stopped the hard way, which
// loses nothing either but makes the next start recover, and Stop says so. A
// second call does nothing.
func (p *Postgres) Stop(ctx context.Context) error {
	p.mu.Lock()
	p.closing = true
	p.mu.Unlock()
	err := p.down(ctx, syscall.SIGINT)
	<-p.done
	p.removeShortSocket()
	unlock(p.lock)
	return err
}

// Kill ends the server as a crash would ("immediate" shutdown) and keeps it down
// until [Postgres.Restart]. It is there for tests.
func (p *Postgres) Kill() error { return p.down(context.Background(), syscall.SIGQUIT) }

// Restart stops the server if it runs, starts it and returns when it answers. It
// is there for tests.
func (p *Postgres) Restart(ctx context.Context) error {
	if err := p.down(ctx, syscall.SIGINT); err != nil {
		return err
	}
	return p.up(ctx)
}

// PID is the server's process, 0 while none runs.
func (p *Postgres) PID() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.server == nil {
		return 0
	}
	return p.server.cmd.Process.Pid
}
