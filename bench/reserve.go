package main

import (
	"context"
)

type reserveCmd struct {
	Ports int `default:"1000"`
}

func (c *reserveCmd) Run(ctx context.Context, r *report) error { return nil }
