package openapi

import (
	"encoding/json"
	"strings"
)

// Document is the description of an API: what may be done, and which of the ways says who asks.
type Document struct {
	Title, Description string
	Schemas            *Schemas
	Ways               Object // securitySchemes by name; each of them is enough

	paths Object
}

// Add describes what a method does at an address.
func (d *Document) Add(method, path string, operation Object) {
	if d.paths == nil {
		d.paths = Object{}
	}
	at, ok := d.paths[path].(Object)
	if !ok {
		at = Object{}
		d.paths[path] = at
	}
	at[strings.ToLower(method)] = operation
}

// JSON writes the document.
func (d *Document) JSON() ([]byte, error) {
	ways := []Object{}
	for _, name := range d.Ways.names() {
		ways = append(ways, Object{name: []string{}})
	}
	text, err := json.MarshalIndent(Object{
		"openapi":    "3.1.0",
		"info":       Object{"title": d.Title, "version": "1", "description": d.Description},
		"paths":      d.paths,
		"components": Object{"schemas": d.Schemas.Found(), "securitySchemes": d.Ways},
		"security":   ways,
	}, "", "  ")
	return append(text, '\n'), err
}
