package meter

import (
	"fmt"
	"slices"
	"strings"
)

// node is a place in a JSON document that some form names, or leads to one.
// Place 0 is everywhere else.
type node uint16

const (
	nowhere node = iota
	top          // the document itself
)

// tree knows all the places that the forms name. It is built once.
type tree struct {
	next  [][]node // by node and key
	acts  [][]act  // by node: what its value means
	heeds []bool   // by node: whether a value there means anything
}

// act is what the value at a node means to a form.
type act struct {
	slot   slot
	form   uint8
	figure figure // slotFigure
	group  *group // slotGroup, slotFigure
	class  textClass
}

// slot is what a value in a reply means.
type slot uint8

const (
	slotID      slot = iota + 1
	slotModel        // of the model that answered
	slotType         // of the event or the object
	slotStatus       // "failed", "queued"
	slotError        // anything but null: the provider says that the call failed
	slotStop         // a string: this choice is complete; true or false: whether everything is
	slotChoice       // an element of what is generated: a chunk without any has the figures only
	slotBlocked      // "INTERVENED": a guardrail spoke in the model's place
	slotText         // generated text
	slotInner        // base64 of a document of its own
	slotGroup        // figures that belong together
	slotFigure       // a number of tokens
	slotKind         // the type of the group that it lies in
)

func newTree(forms []form) *tree {
	t := &tree{next: [][]node{make([]node, 1<<8), make([]node, 1<<8)}, acts: make([][]act, 2)}
	t.next[top][keyElement] = top // an array of documents: Gemini streams so without SSE
	for i := range forms {
		f := &forms[i]
		add := func(paths string, a act) {
			a.form = uint8(i)
			for path := range strings.FieldsSeq(paths) {
				t.add(path, a)
			}
		}
		add(f.id, act{slot: slotID})
		add(f.model, act{slot: slotModel})
		add(f.types, act{slot: slotType})
		add(f.status, act{slot: slotStatus})
		add(f.error, act{slot: slotError})
		add(f.stop, act{slot: slotStop})
		add(f.choices, act{slot: slotChoice})
		add(f.blocked, act{slot: slotBlocked})
		add(f.inner, act{slot: slotInner})
		for j, paths := range f.pieces {
			add(paths, act{slot: slotText, class: textClass(j)})
		}
		for j, paths := range f.wholes {
			add(paths, act{slot: slotText, class: whole + textClass(j)})
		}
		for j := range f.groups {
			g := &f.groups[j]
			for at := range strings.FieldsSeq(g.at) {
				prefix := at + "."
				if at == wholeDocument {
					prefix = ""
				}
				add(at, act{slot: slotGroup, group: g})
				for name, figure := range g.figures {
					add(prefix+name, act{slot: slotFigure, figure: figure, group: g})
				}
				if g.only != "" {
					add(prefix+"type", act{slot: slotKind, group: g})
				}
			}
		}
	}
	t.close()
	return t
}

// close makes what is read often small: places that lead nowhere share a row.
func (t *tree) close() {
	t.heeds = make([]bool, len(t.acts))
	t.heeds[top] = true
	for at, acts := range t.acts {
		t.heeds[at] = t.heeds[at] || len(acts) > 0
		for i := range acts {
			if element := t.next[at][keyElement]; acts[i].slot == slotChoice && element != nowhere {
				t.heeds[element] = true // they are counted
			}
		}
		if !slices.ContainsFunc(t.next[at], func(n node) bool { return n != nowhere }) {
			t.next[at] = t.next[nowhere]
		}
	}
}

// add makes a path known: names with a dot between them, "[]" for what lies in an
// array, "**" at the end for whatever lies within. "." is the document.
func (t *tree) add(path string, a act) {
	at := top
	if path != wholeDocument {
		for step := range strings.SplitSeq(path, ".") {
			if step == "**" {
				for k := range t.next[at] {
					t.next[at][k] = at
				}
				break
			}
			text, arrays, _ := strings.Cut(step, "[")
			at = t.child(at, intern(text))
			for range strings.Count(arrays, "]") {
				at = t.child(at, keyElement)
			}
		}
	}
	for i := range t.acts[at] { // one form's name of the model, say, is another one's
		if b := &t.acts[at][i]; b.slot == a.slot && b.class == a.class && b.group == a.group && b.figure == a.figure {
			return
		}
	}
	t.acts[at] = append(t.acts[at], a)
}

func (t *tree) child(parent node, k key) node {
	if c := t.next[parent][k]; c != nowhere {
		return c
	}
	c := node(len(t.next))
	if c == 0 {
		panic(fmt.Sprintf("meter: more than %d places in the table of forms", 1<<16-1))
	}
	t.next = append(t.next, make([]node, 1<<8))
	t.acts = append(t.acts, nil)
	t.next[parent][k] = c
	return c
}
