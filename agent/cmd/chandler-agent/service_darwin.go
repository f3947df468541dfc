package main

import (
	"bytes"
	"context"
	"encoding/xml"
	"io"
	"os"
	"slices"

	"github.com/kardianos/service"
)

// launchd would end everything that the agent started, hence AbandonProcessGroup.
const launchd = `<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">
<plist version="1.0">
<dict>
	<key>Label</key>
	<string>{{Name | html}}</string>
	<key>ProgramArguments</key>
	<array>
		<string>{{Path | html}}</string>
{{range Arguments}}		<string>{{. | html}}</string>
{{end}}	</array>
	<key>KeepAlive</key>
	<true/>
	<key>RunAtLoad</key>
	<true/>
	<key>AbandonProcessGroup</key>
	<true/>
	<key>Umask</key>
	<integer>63</integer>
	<key>StandardErrorPath</key>
	<string>{{StandardErrorPath | html}}</string>
</dict>
</plist>
`

func serviceOptions() service.KeyValue { return service.KeyValue{"LaunchdConfig": launchd} }

// launchdFile is where package service keeps what launchd is told.
const launchdFile = "/Library/LaunchDaemons/" + serviceName + ".plist"

// redirect has the service, which is there, run another command, unless it does.
func (n native) redirect() (changed bool, err error) {
	there, err := os.ReadFile(launchdFile)
	if err != nil {
		return false, err
	}
	if slices.Equal(programArguments(there), n.command) {
		return false, nil
	}
	if err := n.Uninstall(); err != nil { // which stops it
		return false, err
	}
	return true, n.Install()
}

// programArguments reads the command in launchd's file; nil: there is none.
func programArguments(plist []byte) []string {
	_, after, _ := bytes.Cut(plist, []byte("<key>ProgramArguments</key>"))
	var array struct {
		Words []string `xml:"string"`
	}
	if err := xml.Unmarshal(after, &array); err != nil {
		return nil
	}
	return array.Words
}

// underManager runs the agent. Launchd takes what a program writes for its log, and ends it by a signal.
func underManager(ctx context.Context, _ config, run func(context.Context, io.Writer) error) error {
	return run(ctx, os.Stderr)
}
