// Command check lints a Helm chart and renders it with a file of values, by Helm's own library,
// and reads what that makes as the objects of Kubernetes, in which no field may be unknown. It
// prints them as JSON. It is a module of its own, so that Tidegate depends on neither.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/chart/common/util"
	"helm.sh/helm/v4/pkg/chart/v2/lint"
	"helm.sh/helm/v4/pkg/chart/v2/lint/support"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	"helm.sh/helm/v4/pkg/engine"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/yaml"
)

func main() {
	if len(os.Args) != 3 {
		fail("usage: check CHART VALUES.yaml")
	}
	objects, err := check(os.Args[1], os.Args[2])
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(objects)
	}
	if err != nil {
		fail(err)
	}
}

func check(chart, valuesFile string) (objects []runtime.Object, err error) {
	file, err := os.Open(valuesFile)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	values, err := loader.LoadValues(file)
	if err != nil {
		return nil, err
	}
	for _, m := range lint.RunAll(chart, values, "default").Messages {
		if m.Severity >= support.WarningSev {
			err = errors.Join(err, m)
		}
	}
	if err != nil {
		return nil, err
	}
	loaded, err := loader.Load(chart)
	if err != nil {
		return nil, err
	}
	full, err := util.ToRenderValues(loaded, values, common.ReleaseOptions{Name: "tidegate", Namespace: "default", IsInstall: true}, nil)
	if err != nil {
		return nil, err
	}
	rendered, err := engine.Render(loaded, full)
	if err != nil {
		return nil, err
	}
	for _, name := range slices.Sorted(maps.Keys(rendered)) {
		if strings.HasSuffix(name, ".txt") {
			continue
		}
		some, err := decode(rendered[name])
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		objects = append(objects, some...)
	}
	return objects, nil
}

func decode(manifests string) (objects []runtime.Object, err error) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{appsv1.AddToScheme, corev1.AddToScheme, networkingv1.AddToScheme, policyv1.AddToScheme} {
		if err := add(scheme); err != nil {
			return nil, err
		}
	}
	decoder := serializer.NewCodecFactory(scheme, serializer.EnableStrict).UniversalDeserializer()
	for documents := yaml.NewYAMLToJSONDecoder(strings.NewReader(manifests)); ; {
		var document runtime.RawExtension
		if err := documents.Decode(&document); errors.Is(err, io.EOF) {
			return objects, nil
		} else if err != nil {
			return nil, err
		}
		if len(document.Raw) == 0 || string(document.Raw) == "null" {
			continue
		}
		object, _, err := decoder.Decode(document.Raw, nil, nil)
		if err != nil {
			return nil, fmt.Errorf("%w in %s", err, document.Raw)
		}
		objects = append(objects, object)
	}
}

func fail(what ...any) {
	fmt.Fprintln(os.Stderr, what...)
	os.Exit(1)
}
