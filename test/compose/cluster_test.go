package compose

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/types"

	"github.com/tidegate/tidegate/internal/testenv"
)

// What runs as these services do is in test/cluster.
func TestComposeOfTheCluster(t *testing.T) {
	dir := filepath.Join(root, "deploy", "cluster")
	if _, err := loadFrom(t, dir, nil); err == nil || !strings.Contains(err.Error(), ".env.example") {
		t.Errorf("without passwords it loads, or does not say what to do: %v", err)
	}
	var env []string
	passwords := exampleEnvOf(t, dir)
	for name, value := range passwords {
		env = append(env, name+"="+value)
	}
	project, err := loadFrom(t, dir, env)
	if err != nil {
		t.Fatal(err)
	}
	if names := project.ServiceNames(); !slices.Equal(names, []string{"nats-1", "nats-2", "nats-3", "postgres-1", "postgres-2", "tidegate-1", "tidegate-2"}) {
		t.Errorf("services %q", names)
	}
	wantContained(t, project)
	var named []string
	for _, conf := range []string{filepath.Join(dir, "nats.conf"), filepath.Join(dir, "..", "nats.conf")} {
		named = append(named, regexp.MustCompile(`NATS_[A-Z0-9_]+`).FindAllString(string(testenv.Must(os.ReadFile(conf))), -1)...)
	}
	for name, service := range project.Services {
		kept := map[string]string{"nats": "/data", "postgres": "/var/lib/postgresql/data", "tidegate": "/data"}[strings.Split(name, "-")[0]]
		volume := name
		if strings.HasPrefix(name, "tidegate") {
			volume = "tidegate" // both have the session key
		}
		if !slices.ContainsFunc(service.Volumes, func(v types.ServiceVolumeConfig) bool {
			return v.Type == types.VolumeTypeVolume && v.Target == kept && v.Source == volume
		}) {
			t.Errorf("%s keeps %s in no volume of its own", name, kept)
		}
		is := func(variable, want string) {
			if have := service.Environment[variable]; have == nil || *have != want {
				t.Errorf("%s: %s is %v, want %s", name, variable, have, want)
			}
		}
		switch strings.Split(name, "-")[0] {
		case "nats":
			is("NATS_NAME", name)
			for _, variable := range named {
				if service.Environment[variable] == nil {
					t.Errorf("%s has no %s, which its configuration names", name, variable)
				}
			}
			for i := 1; i <= 3; i++ {
				is(fmt.Sprintf("NATS_ROUTE_%d", i), fmt.Sprintf("nats://route:%s@nats-%d:6222", passwords["NATS_ROUTE_PASSWORD"], i))
			}
		case "tidegate":
			node := "nats://tidegate:" + passwords["NATS_TIDEGATE_PASSWORD"] + "@nats-%d:4222"
			is("TIDEGATE_NATS_URL", fmt.Sprintf(node+","+node+","+node, 1, 2, 3))
			is("TIDEGATE_DATABASE_URL", "postgres://tidegate:"+passwords["POSTGRES_PASSWORD"]+"@postgres-1:5432,postgres-2:5432/tidegate?target_session_attrs=primary&sslmode=disable")
		}
	}
}
