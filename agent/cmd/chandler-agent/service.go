package main

// serviceName is what the operating system's service manager knows the agent as.
const serviceName = "chandler-agent"

// manager is the operating system's service manager, for this one service. Every method changes nothing where
// nothing is to be changed. A restart or a stop leaves running installers and their supervisors alone.
type manager interface {
	// install makes the service start with the machine, and again whenever it ends.
	install() (changed bool, err error)
	uninstall() (changed bool, err error)
	start() error
	stop() error
	restart() error
}
