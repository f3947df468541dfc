package main

import (
	"runtime"

	"github.com/spf13/cobra"

	"chandler/events/order"
)

// versionInfo is what version prints with -o json.
type versionInfo struct {
	Version string `json:"version"`
	Go      string `json:"go"`
	OS      string `json:"os"`
	Arch    string `json:"arch"`
	Orders  int    `json:"order_format"` // newest that it signs
}

func newVersion(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Show the version of this program", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			v := versionInfo{version, runtime.Version(), runtime.GOOS, runtime.GOARCH, order.Format}
			return a.answer(cmd, v, v.Version, "chandler %s (%s, %s/%s)", v.Version, v.Go, v.OS, v.Arch)
		},
	}
}
