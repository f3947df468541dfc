// Package machinetest gives tests whole Debian machines to throw away: each boots systemd in a container of
// its own, with its own files, network and processes, so that an agent runs there as a real service and
// installs real packages. Machines of one Lab share a network that reaches nothing else; the broker and
// everything that is not an agent runs at the lab's own address.
//
//	lab := machinetest.NewLab(t)
//	server := lab.Command("chandler", "up", "--listen", lab.Address()+":4222")
//	m := lab.Start("alpha")
//	m.CopyIn("chandler-agent", "/usr/local/bin/chandler-agent", 0o755)
//	m.Exec("systemctl", "start", "chandler-agent")
//	m.AddUser("alice")
//	m.Login("alice")
//
// Users log on and off as the machine's own logind has it. A machine that restarts, by Reboot or because a
// program in it asks for that, boots again with its files; Kill9 kills a service where no unit is told.
//
// Under failure: what the machine that runs the tests lacks makes the test skip with a sentence that says
// what to install, or fail when CHANDLER_TEST_REQUIRE=1. Everything is held by processes that end when the
// test's process does, however it ends: namespaces and mounts are theirs alone and vanish with them. Only
// the base file system stays, in the user's cache directory.
package machinetest
