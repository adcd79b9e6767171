package compose

import (
	"bufio"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/dotenv"
	"github.com/compose-spec/compose-go/v2/types"
)

const root = "../.."

func load(t *testing.T, env []string) (*types.Project, error) {
	t.Helper()
	return loadFrom(t, root, env)
}

func loadFrom(t *testing.T, dir string, env []string) (*types.Project, error) {
	t.Helper()
	options, err := cli.NewProjectOptions([]string{filepath.Join(dir, "docker-compose.yml")},
		cli.WithWorkingDirectory(dir), cli.WithEnv(env))
	if err != nil {
		t.Fatal(err)
	}
	return options.LoadProject(t.Context())
}

// exampleEnv is .env.example as a user fills it in.
func exampleEnv(t *testing.T) map[string]string {
	t.Helper()
	return exampleEnvOf(t, root)
}

func exampleEnvOf(t *testing.T, dir string) map[string]string {
	t.Helper()
	env, err := dotenv.Read(filepath.Join(dir, ".env.example"))
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range env {
		if value != "" {
			t.Errorf("%s has the example value %q, which some would leave", name, value)
		}
		env[name] = "pw" + strings.ReplaceAll(name, "_", "")
	}
	return env
}

func loadExample(t *testing.T) *types.Project {
	t.Helper()
	var env []string
	for name, value := range exampleEnv(t) {
		env = append(env, name+"="+value)
	}
	project, err := load(t, env)
	if err != nil {
		t.Fatal(err)
	}
	return project
}

func TestComposeStartsTheThreeServers(t *testing.T) {
	project := loadExample(t)
	if names := project.ServiceNames(); !slices.Equal(names, []string{"nats", "postgres", "tidegate"}) {
		t.Errorf("services %q", names)
	}
	wantContained(t, project)
	for name, mount := range map[string]string{"nats": "/data", "postgres": "/var/lib/postgresql/data", "tidegate": "/data"} {
		if !slices.ContainsFunc(project.Services[name].Volumes, func(v types.ServiceVolumeConfig) bool {
			return v.Type == types.VolumeTypeVolume && v.Target == mount
		}) {
			t.Errorf("%s keeps %s in no volume: its data end with the container", name, mount)
		}
	}
}

func wantContained(t *testing.T, project *types.Project) {
	t.Helper()
	for name, service := range project.Services {
		if service.HealthCheck == nil || len(service.HealthCheck.Test) == 0 || service.HealthCheck.Test[0] != "CMD" {
			t.Errorf("%s: no health check that runs without a shell", name)
		}
		if !slices.Contains(service.SecurityOpt, "no-new-privileges:true") {
			t.Errorf("%s may gain privileges", name)
		}
		if service.Privileged || service.NetworkMode == "host" {
			t.Errorf("%s is not contained", name)
		}
		for _, port := range service.Ports {
			if port.HostIP != "127.0.0.1" {
				t.Errorf("%s publishes port %s on %q, want 127.0.0.1 only", name, port.Published, port.HostIP)
			}
		}
		for _, volume := range service.Volumes {
			if volume.Type != types.VolumeTypeBind {
				continue
			}
			if _, err := os.Stat(volume.Source); err != nil || !volume.ReadOnly {
				t.Errorf("%s mounts %s: read-only %t, %v", name, volume.Source, volume.ReadOnly, err)
			}
		}
	}
}

func TestComposeConfinesTidegate(t *testing.T) {
	project := loadExample(t)
	tidegate := project.Services["tidegate"]
	if !tidegate.ReadOnly || !slices.Equal(tidegate.CapDrop, []string{"ALL"}) || len(tidegate.CapAdd) > 0 {
		t.Errorf("read-only %t, capabilities dropped %q, added %q", tidegate.ReadOnly, tidegate.CapDrop, tidegate.CapAdd)
	}
	if !slices.ContainsFunc(tidegate.Tmpfs, func(s string) bool { return strings.HasPrefix(s, "/tmp") }) {
		t.Error("no writable /tmp")
	}
	for _, dependency := range []string{"nats", "postgres"} {
		if tidegate.DependsOn[dependency].Condition != types.ServiceConditionHealthy {
			t.Errorf("it does not wait for %s to be healthy", dependency)
		}
	}
	env := exampleEnv(t)
	for name, want := range map[string]string{
		"TIDEGATE_NATS_URL":     "nats://tidegate:" + env["NATS_TIDEGATE_PASSWORD"] + "@nats:4222",
		"TIDEGATE_DATABASE_URL": "postgres://tidegate:" + env["POSTGRES_PASSWORD"] + "@postgres:5432/tidegate?sslmode=disable",
		"TIDEGATE_HTTP":         "0.0.0.0:8080",
		"TIDEGATE_DATA":         "/data",
	} {
		if got := tidegate.Environment[name]; got == nil || *got != want {
			t.Errorf("%s is %v, want %s", name, got, want)
		}
	}
}

func TestComposeHasNoDefaultPassword(t *testing.T) {
	if _, err := load(t, nil); err == nil || !strings.Contains(err.Error(), ".env.example") {
		t.Errorf("without passwords it loads, or does not say what to do: %v", err)
	}
	var all []string
	for name, value := range exampleEnv(t) {
		all = append(all, name+"="+value)
	}
	slices.Sort(all)
	for i, missing := range all {
		name, _, _ := strings.Cut(missing, "=")
		for _, without := range [][]string{slices.Delete(slices.Clone(all), i, i+1), slices.Replace(slices.Clone(all), i, i+1, name+"=")} {
			if _, err := load(t, without); err == nil || !strings.Contains(err.Error(), name) {
				t.Errorf("without %s: %v", name, err)
			}
		}
	}
}

// The Dockerfile is read line by line: no engine runs where the tests do.
func TestImageRunsWithoutPrivileges(t *testing.T) {
	build := loadExample(t).Services["tidegate"].Build
	f, err := os.Open(filepath.Join(build.Context, build.Dockerfile))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var stages int
	var user, from string
	for lines := bufio.NewScanner(f); lines.Scan(); {
		instruction, rest, _ := strings.Cut(lines.Text(), " ")
		switch instruction {
		case "FROM":
			stages++
			from, user = rest, ""
		case "USER":
			user = rest
		}
	}
	if stages != 2 || strings.HasPrefix(from, "golang") {
		t.Errorf("%d stages, the last from %q: the image must not carry the toolchain", stages, from)
	}
	if uid, _, _ := strings.Cut(user, ":"); uid == "" || uid == "0" || uid == "root" {
		t.Errorf("the last stage runs as user %q", user)
	}
}
