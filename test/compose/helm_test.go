package compose

import (
	"bytes"
	"encoding/json"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/tidegate/tidegate/internal/testenv"
)

// object is what these tests look at of a Kubernetes object.
type object struct {
	Kind     string
	Metadata struct{ Name string }
	Spec     struct {
		Replicas *int
		Selector json.RawMessage
		Template struct {
			Metadata struct{ Labels map[string]string }
			Spec     pod
		}
		PodSelector, MaxUnavailable json.RawMessage // of a policy, of a budget
		PolicyTypes                 []string
		Ingress, Egress             []struct{ Ports, From, To []json.RawMessage }
	}
}

type pod struct {
	AutomountServiceAccountToken *bool
	SecurityContext              struct {
		RunAsNonRoot   bool
		RunAsUser      int
		FSGroup        int `json:"fsGroup"`
		SeccompProfile struct{ Type string }
	}
	Containers []struct {
		Image string
		Args  []string
		Env   []struct {
			Name, Value string
			ValueFrom   struct{ SecretKeyRef struct{ Name, Key string } }
		}
		LivenessProbe, ReadinessProbe, StartupProbe *struct {
			HTTPGet struct{ Path string } `json:"httpGet"`
		}
		Resources       struct{ Requests, Limits map[string]string }
		SecurityContext struct {
			AllowPrivilegeEscalation, ReadOnlyRootFilesystem *bool
			Capabilities                                     struct{ Drop, Add []string }
		}
	}
	Volumes []struct{ Secret *struct{ SecretName string } }
}

// The chart, read by Helm's own library in a module of its own, which also has Kubernetes' schemas.
func TestHelmChart(t *testing.T) {
	t.Parallel()
	check := testenv.Must(filepath.Abs(filepath.Join(root, "bin", "test", "helm-check"))) // it stays: what has not changed is not linked again
	build := exec.Command("go", "build", "-o", check, ".")
	build.Dir = filepath.Join(root, "deploy", "helm", "check")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	render := func(values string) ([]object, string) {
		t.Helper()
		file := filepath.Join(t.TempDir(), "values.yaml")
		if err := os.WriteFile(file, []byte(values), 0o600); err != nil {
			t.Fatal(err)
		}
		var complaints bytes.Buffer
		run := exec.Command(check, filepath.Join(root, "deploy", "helm", "tidegate"), file)
		run.Stderr = &complaints
		out, err := run.Output()
		if err != nil {
			return nil, complaints.String()
		}
		var objects []object
		if err := json.Unmarshal(out, &objects); err != nil {
			t.Fatal(err)
		}
		return objects, ""
	}
	help := string(testenv.Must(exec.Command(testenv.Binary(t, "cmd/tidegate"), "run", "--help").Output()))
	for name, values := range map[string]string{
		"as it is": "{}",
		"with all": `
image: { tag: 1.2.3 }
imagePullSecrets: [{ name: registry }]
streamReplicas: 1
env: [{ name: TIDEGATE_LOG_LEVEL, value: warn }]
roles:
  admin: { env: [{ name: TIDEGATE_PUBLIC_URL, value: "https://tidegate.example.com" }] }
  edge: { replicas: 5 }
alerts: { secret: receivers }
networkPolicy:
  nats: { to: [{ podSelector: { matchLabels: { app: nats } } }] }
  adminEgress: [{ ports: [{ port: 443 }] }]
nodeSelector: { disk: ssd }
tolerations: [{ key: dedicated, operator: Exists }]
`} {
		objects, complaints := render(values)
		if complaints != "" {
			t.Fatalf("%s: %s", name, complaints)
		}
		wantDeployed(t, objects, help)
	}
	for values, want := range map[string]string{
		"image: { taag: 1.2.3 }":                                       "taag",
		"roles: { consumer: { replicas: -1 } }":                        "replicas",
		"roles: { edge: { resources: { limits: { memory: lots } } } }": "memory",
		"nats: { secret: '' }":                                         "secret",
	} {
		if _, complaints := render(values); !strings.Contains(complaints, want) {
			t.Errorf("%s: %q, want a complaint about %s", values, complaints, want)
		}
	}
}

func wantDeployed(t *testing.T, objects []object, help string) {
	t.Helper()
	budgets, policies, services := map[string]string{}, map[string]object{}, map[string]string{} // by what they select
	deployments := map[string]object{}                                                           // by role
	for _, o := range objects {
		switch o.Kind {
		case "Deployment":
			deployments[o.Spec.Template.Metadata.Labels["app.kubernetes.io/component"]] = o
		case "PodDisruptionBudget":
			budgets[string(o.Spec.Selector)] = string(o.Spec.MaxUnavailable)
		case "NetworkPolicy":
			policies[string(o.Spec.PodSelector)] = o
		case "Service":
			services[string(o.Spec.Selector)] = o.Metadata.Name
		default:
			t.Errorf("there is a %s %s", o.Kind, o.Metadata.Name)
		}
	}
	if roles := slices.Sorted(maps.Keys(deployments)); !slices.Equal(roles, []string{"admin", "consumer", "edge", "gate"}) {
		t.Errorf("deployments of %q", roles)
	}
	for role, d := range deployments {
		wantConfined(t, role, d.Spec.Template.Spec, help)
		selector := string(d.Spec.Selector)
		if budgets[selector] != "1" {
			t.Errorf("%s: a drain of nodes may take %q of its pods", role, budgets[selector])
		}
		policy, serves := policies[selector].Spec, role == "admin" || role == "edge"
		if !slices.Equal(policy.PolicyTypes, []string{"Ingress", "Egress"}) || len(policy.Ingress) != 1 || len(policy.Ingress[0].From) == 0 || len(policy.Egress) < 3 {
			t.Errorf("%s: network policy %+v", role, policy)
		}
		for _, rule := range policy.Egress {
			if len(rule.Ports) == 0 {
				t.Errorf("%s may reach every port", role)
			}
		}
		var labels struct{ MatchLabels json.RawMessage }
		if err := json.Unmarshal(d.Spec.Selector, &labels); err != nil {
			t.Fatal(err)
		}
		if _, is := services[string(labels.MatchLabels)]; is != serves {
			t.Errorf("%s has a service: %t", role, is)
		}
		delete(budgets, selector)
		delete(policies, selector)
		delete(services, string(labels.MatchLabels))
	}
	if len(budgets)+len(policies)+len(services) > 0 {
		t.Errorf("these select nothing: %v %v %v", budgets, policies, services)
	}
}

// wantConfined wants a role to run with no more than it needs, and to be looked after.
func wantConfined(t *testing.T, role string, p pod, help string) {
	t.Helper()
	if p.AutomountServiceAccountToken == nil || *p.AutomountServiceAccountToken || !p.SecurityContext.RunAsNonRoot || p.SecurityContext.RunAsUser == 0 || p.SecurityContext.SeccompProfile.Type != "RuntimeDefault" {
		t.Errorf("%s: %+v", role, p.SecurityContext)
	}
	if len(p.Containers) != 1 {
		t.Fatalf("%s has %d containers", role, len(p.Containers))
	}
	c := p.Containers[0]
	if s := c.SecurityContext; s.AllowPrivilegeEscalation == nil || *s.AllowPrivilegeEscalation || s.ReadOnlyRootFilesystem == nil || !*s.ReadOnlyRootFilesystem ||
		!slices.Equal(s.Capabilities.Drop, []string{"ALL"}) || len(s.Capabilities.Add) > 0 {
		t.Errorf("%s: %+v", role, s)
	}
	if c.Resources.Requests["cpu"] == "" || c.Resources.Requests["memory"] == "" || c.Resources.Limits["memory"] == "" {
		t.Errorf("%s: resources %v", role, c.Resources)
	}
	if c.LivenessProbe == nil || c.LivenessProbe.HTTPGet.Path != "/healthz" || c.ReadinessProbe == nil {
		t.Errorf("%s is not looked after", role)
	} else if ready := c.ReadinessProbe; ready.HTTPGet.Path != "/readyz" && (c.StartupProbe == nil || c.StartupProbe.HTTPGet.Path != "/readyz") {
		t.Errorf("nobody waits for %s to be ready", role)
	}
	known := regexp.MustCompile(`\$(TIDEGATE_\w+)`)
	var variables []string
	for _, m := range known.FindAllStringSubmatch(help, -1) {
		variables = append(variables, m[1])
	}
	secrets := map[string]string{}
	for _, e := range c.Env {
		if !slices.Contains(variables, e.Name) {
			t.Errorf("%s: tidegate knows no %s", role, e.Name)
		}
		if strings.Contains(e.Value, "@") {
			t.Errorf("%s: %s is no reference to a secret", role, e.Name)
		}
		if ref := e.ValueFrom.SecretKeyRef; ref.Name != "" {
			secrets[e.Name] = ref.Name + " " + ref.Key
		}
		if e.Name == "TIDEGATE_ROLES" && e.Value != role {
			t.Errorf("%s has roles %s", role, e.Value)
		}
	}
	if want := map[string]string{"TIDEGATE_NATS_URL": "tidegate-nats " + role, "TIDEGATE_DATABASE_URL": "tidegate-postgres url"}; !maps.Equal(secrets, want) {
		t.Errorf("%s: secrets %v, want %v", role, secrets, want)
	}
	if password(t, "tidegate-"+role) == "" {
		t.Errorf("deploy/nats.conf has no user for %s", role)
	}
}
