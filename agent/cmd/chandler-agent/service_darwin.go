package main

import (
	"context"
	"io"
	"os"

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

// underManager runs the agent. Launchd takes what a program writes for its log, and ends it by a signal.
func underManager(ctx context.Context, _ config, run func(context.Context, io.Writer) error) error {
	return run(ctx, os.Stderr)
}
