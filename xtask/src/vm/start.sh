# Process 1 of a virtual machine once it has its root: runs the command on the second serial line, writes its exit code to
# the third, and ends the machine with everything in it. TERMINAL is ROWSxCOLUMNS where somebody sits at that line.
here=/run/netdiag-vm
line=/dev/ttyS1
code=0
if [ -n "${TERMINAL:-}" ]; then
    $here/busybox stty -F $line sane rows "${TERMINAL%x*}" columns "${TERMINAL#*x}"
    $here/busybox setsid -c /bin/sh $here/command <$line >$line 2>&1 || code=$?
else
    # What is no terminal outside is none for the command: a pipe, as it would be there.
    $here/busybox stty -F $line raw -echo
    $here/busybox mkfifo $here/output
    $here/busybox cat <$here/output >$line &
    reader=$!
    $here/busybox setsid /bin/sh $here/command </dev/null >$here/output 2>&1 || code=$?
    # Until all is read; a daemon the command left behind may hold the pipe open.
    ($here/busybox sleep 2 && kill $reader) 2>/dev/null &
    wait $reader
fi
echo $code >/dev/ttyS2
$here/busybox poweroff -f
