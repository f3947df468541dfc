package userrunner

const standardPath = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"

// locale: the system keeps none in a file.
func locale() []string { return []string{"LANG=en_US.UTF-8"} }
