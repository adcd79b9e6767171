package replication_test

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/tidegate/tidegate/internal/replication"
	"github.com/tidegate/tidegate/internal/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// cluster runs three servers, and returns the administrator's JetStream.
func cluster(t *testing.T) (servers []*server.Server, js jetstream.JetStream) {
	t.Helper()
	var routes []*url.URL
	for range 3 {
		routes = append(routes, testenv.Must(url.Parse("nats://"+testenv.FreeAddr(t))))
	}
	for i, route := range routes {
		var port int
		testenv.Must(fmt.Sscan(route.Port(), &port))
		s := testenv.Must(server.NewServer(&server.Options{ServerName: fmt.Sprint("n", i), Host: "127.0.0.1", Port: server.RANDOM_PORT, NoSigs: true, NoLog: true, JetStream: true, StoreDir: t.TempDir(),
			Cluster: server.ClusterOpts{Name: "three", Host: "127.0.0.1", Port: port}, Routes: routes}))
		s.Start()
		t.Cleanup(func() {
			s.Shutdown()
			s.WaitForShutdown()
		})
		servers = append(servers, s)
	}
	for _, s := range servers {
		if !s.ReadyForConnections(20 * time.Second) {
			t.Fatal("a server is not ready")
		}
	}
	nc := testenv.Must(nats.Connect(servers[0].ClientURL(), nats.MaxReconnects(-1), nats.ReconnectWait(50*time.Millisecond)))
	t.Cleanup(nc.Close)
	return servers, testenv.Must(jetstream.New(nc))
}

func TestACluster(t *testing.T) {
	servers, js := cluster(t)
	var made jetstream.Stream
	testenv.Eventually(t, "a stream is made once all three are there", func() bool {
		s, err := replication.Create(t.Context(), js, jetstream.StreamConfig{Name: "THREE"}, 0)
		if refused := (*replication.RefusedError)(nil); errors.As(err, &refused) {
			t.Fatalf("%v: the nodes may come", err)
		}
		made = s
		return err == nil
	})
	if n := made.CachedInfo().Config.Replicas; n != 3 {
		t.Errorf("%d copies, want 3", n)
	}
	for replicas, ok := range map[int]bool{0: true, 1: true, 3: true, 5: false} {
		err := replication.Check(made.CachedInfo(), replicas)
		if refused := (*replication.RefusedError)(nil); (err == nil) != ok || !ok && (!errors.As(err, &refused) || !strings.Contains(err.Error(), "nats stream edit THREE --replicas=5")) {
			t.Errorf("3 copies where %d are asked for: %v", replicas, err)
		}
	}
	refused := (*replication.RefusedError)(nil)
	if _, err := replication.Create(t.Context(), js, jetstream.StreamConfig{Name: "FIVE"}, 5); err == nil || errors.As(err, &refused) || !strings.Contains(err.Error(), "cluster three cannot keep 5 copies") {
		t.Errorf("five copies on three nodes: %v", err)
	}
	one := testenv.Must(replication.Create(t.Context(), js, jetstream.StreamConfig{Name: "ONE"}, 1)).CachedInfo()
	if err := replication.Check(one, 0); !errors.As(err, &refused) {
		t.Errorf("one copy on a cluster: %v, want that it is refused", err)
	}
	if missing := replication.Missing(one, 0); missing != 2 {
		t.Errorf("%d copies are missing, want 2", missing)
	}
	servers[2].Shutdown()
	testenv.Eventually(t, "a node that is away is missing", func() bool {
		info, err := made.Info(t.Context())
		return err == nil && replication.Missing(info, 0) == 1 && replication.Check(info, 0) == nil
	})
}

func TestALoneServer(t *testing.T) {
	nc := testenv.Connect(t, testenv.NATS(t))
	js := testenv.Must(jetstream.New(nc))
	one := testenv.Must(replication.Create(t.Context(), js, jetstream.StreamConfig{Name: "ONE"}, 0)).CachedInfo()
	if one.Config.Replicas != 1 || replication.Check(one, 0) != nil || replication.Missing(one, 0) != 0 {
		t.Errorf("%d copies, %v, %d missing; want one", one.Config.Replicas, replication.Check(one, 0), replication.Missing(one, 0))
	}
	_, made := replication.Create(t.Context(), js, jetstream.StreamConfig{Name: "THREE"}, 3)
	for what, err := range map[string]error{"to make": made, "to find": replication.Check(one, 3)} {
		if refused := (*replication.RefusedError)(nil); !errors.As(err, &refused) || !strings.Contains(err.Error(), "3 copies (--replicas)") || !strings.Contains(err.Error(), "lone server") {
			t.Errorf("%s three copies: %v", what, err)
		}
	}
}
