// Package openapi makes the OpenAPI 3.1 description of an HTTP API from the Go types
// that its handlers read and write.
package openapi

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// Object is a JSON object. Its keys come out sorted, so that the document changes
// only when the API does.
type Object map[string]any

func (o Object) names() []string { return slices.Sorted(maps.Keys(o)) }

// Schemas collects the schemas of named types, for components/schemas.
type Schemas struct {
	Enums   map[reflect.Type][]string // types whose values are one of these words
	Written map[reflect.Type]Object   // types that write themselves in another form
	found   Object
}

// Found is every schema that was referred to.
func (s *Schemas) Found() Object { return s.found }

// OfBody is [Schemas.Of] for what a client sends: fields that are not known are
// refused there, while an answer may grow.
func (s *Schemas) OfBody(v any) Object {
	ref := s.Of(v)
	s.found[nameOf(reflect.TypeOf(v))].(Object)["additionalProperties"] = false
	return ref
}

// Of is the schema of v's type. Structs become components, under their names; a
// field says more about itself in the tags doc, minimum, maximum, enum and nullable.
func (s *Schemas) Of(v any) Object { return s.of(reflect.TypeOf(v)) }

var (
	timeType  = reflect.TypeFor[time.Time]()
	valueType = reflect.TypeFor[jsontext.Value]()
)

func (s *Schemas) of(t reflect.Type) Object {
	if words, ok := s.Enums[t]; ok {
		return Object{"type": "string", "enum": words}
	}
	if schema, ok := s.Written[t]; ok {
		return maps.Clone(schema)
	}
	switch {
	case t == timeType:
		return Object{"type": "string", "format": "date-time"}
	case t == valueType:
		return Object{}
	case t.Kind() == reflect.Pointer:
		return nullable(s.of(t.Elem()))
	}
	switch t.Kind() {
	case reflect.String:
		return Object{"type": "string"}
	case reflect.Bool:
		return Object{"type": "boolean"}
	case reflect.Int, reflect.Int64:
		return Object{"type": "integer", "format": "int64"}
	case reflect.Float64:
		return Object{"type": "number"}
	case reflect.Slice:
		return Object{"type": "array", "items": s.of(t.Elem())}
	case reflect.Struct:
		return s.component(t)
	default:
		panic(fmt.Sprintf("openapi: no schema for %s", t)) // a test meets this before anyone else
	}
}

func nullable(o Object) Object {
	if kind, ok := o["type"].(string); ok {
		o["type"] = []string{kind, "null"}
		return o
	}
	return Object{"oneOf": []Object{o, {"type": "null"}}}
}

func (s *Schemas) component(t reflect.Type) Object {
	name := nameOf(t)
	if s.found == nil {
		s.found = Object{}
	}
	if _, known := s.found[name]; !known {
		s.found[name] = Object{} // ends the recursion of a type that contains itself
		properties, required := Object{}, []string{}
		s.fields(t, properties, &required)
		s.found[name] = Object{"type": "object", "properties": properties, "required": required}
	}
	return Object{"$ref": "#/components/schemas/" + name}
}

func nameOf(t reflect.Type) string {
	return strings.ToUpper(t.Name()[:1]) + strings.TrimSuffix(t.Name()[1:], "Reply")
}

// fields adds a struct's fields, and those of the structs embedded in it.
func (s *Schemas) fields(t reflect.Type, properties Object, required *[]string) {
	for field := range t.Fields() {
		name, options, _ := strings.Cut(field.Tag.Get("json"), ",")
		if field.Anonymous && name == "" {
			s.fields(field.Type, properties, required)
			continue
		}
		if name == "-" {
			continue
		}
		schema := s.of(field.Type)
		if words := field.Tag.Get("enum"); words != "" {
			schema["enum"] = strings.Split(words, ",")
		}
		if field.Tag.Get("nullable") == "true" {
			schema = nullable(schema)
		}
		if doc := field.Tag.Get("doc"); doc != "" {
			schema["description"] = doc
		}
		for _, bound := range []string{"minimum", "maximum"} {
			if n, err := strconv.ParseInt(field.Tag.Get(bound), 10, 64); err == nil {
				schema[bound] = n
			}
		}
		properties[name] = schema
		if !strings.Contains(options, "omit") {
			*required = append(*required, name)
		}
	}
}
