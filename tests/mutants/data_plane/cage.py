"""The cage of QEMU's tools, and what is believed of an image of a format."""

from __future__ import annotations

from typing import Final

from lines import Mutant, never, unit

# fmt: off
CAGE: Final = (
    Mutant("system/cage/launch.py", "    _exit_on_failure(_libc.prctl(_PDEATHSIG, signal.SIGKILL, 0, 0, 0))\n", "", unit("tool_limits", "a_server_does_not_outlive_its_starter_and_keeps_no_lock")),
    never("system/cage/launch.py", "    if os.getppid() != int(parent):\n", unit("tool_limits", "who_is_to_start_for_a_process_that_is_gone_ends_at_once")),
    Mutant("system/cage/launch.py", "    _exit_on_failure(_libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0))  # and so no exec clears the signal above\n", "", unit("cage", "a_tool_gains_no_rights_makes_no_core_and_has_a_filter_of_its_calls")),
    Mutant("system/cage/launch.py", "    _set_limit(resource.RLIMIT_AS, int(memory))\n", "", unit("tool_limits", "a_server_has_a_limit_of_memory")),
    Mutant("system/cage/launch.py", "    _set_limit(resource.RLIMIT_CORE, 0)\n", "", unit("cage", "a_tool_gains_no_rights_makes_no_core_and_has_a_filter_of_its_calls")),
    never("system/cage/launch.py", "    if int(abi):\n", unit("cage", "a_file_that_an_image_names_is_not_opened_by_a_check_either")),
    never("system/cage/launch.py", "    if int(filters):\n", unit("cage", "a_tool_gains_no_rights_makes_no_core_and_has_a_filter_of_its_calls")),
    Mutant("system/cage/launch.py", "(WRITE_FILE | TRUNCATE if writable else 0)", "WRITE_FILE | TRUNCATE", unit("cage", "a_file_that_is_handed_over_for_reading_is_not_written")),
    Mutant("system/cage/launch.py", "    \"/dev/null\": READ_FILE | WRITE_FILE,\n", "", unit("cage", "what_was_handed_over_is_read_and_written_under_each_version_of_landlock")),
    never("system/cage/launch.py", "    if _is_script(program):\n", unit("tool_limits", "a_tool_that_talks_without_end_takes_no_memory")),
    Mutant("system/cage/launch.py", "    if _is_script(program):\n", "    if True:\n", unit("cage", "a_program_opens_no_other_program")),
    Mutant("system/cage/launch.py", "SCOPES[1] if abi >= SCOPES[0] else 0", "0", unit("cage", "a_tool_sends_no_signals_to_anybody_else")),
    Mutant("system/cage/launch.py", "    denied = (*numbers, _IO_URING_SETUP)\n", "    denied = tuple(numbers)\n", unit("cage", "no_call_that_makes_a_connection_is_let_through")),
    Mutant("system/cage/launch.py", "    denied = (*numbers, _IO_URING_SETUP)\n", "    denied = (numbers[0], _IO_URING_SETUP)\n", unit("cage", "no_call_that_makes_a_connection_is_let_through")),
    Mutant("system/cage/launch.py", "    denied = (*numbers, _IO_URING_SETUP)\n", "    denied = (numbers[1], _IO_URING_SETUP)\n", unit("cage", "no_call_that_makes_a_connection_is_let_through")),
    Mutant("system/cage/launch.py", "        (at_least, refuse - 4, 0, _X32),\n", "        (at_least, 0, 0, _X32),\n", unit("cage", "no_call_that_makes_a_connection_is_let_through")),
    never("system/cage/__init__.py", "        if self.lack and not self.uncaged:\n", unit("cage", "without_a_cage_formats_are_refused_unless_the_owner_of_the_host_allows_it")),
    Mutant("system/cage/tool.py", "            said, in_time = _read_until_closed(outputs, problems, time.monotonic() + seconds, idle)\n", "            said, in_time = _read_until_closed(outputs, problems, time.monotonic() + seconds + 20, idle)\n", unit("tool_limits", "a_tool_that_talks_without_end_takes_no_memory")),
    Mutant("system/cage/tool.py", "                    del said[outputs][_LONGEST:]\n", "                    pass\n", unit("tool_limits", "a_tool_that_talks_without_end_takes_no_memory")),
    never("volumes/headers.py", "    if volume.driver == \"vmdk\" and magic == TEXT:\n", unit("soundness", "a_vmdk_of_several_files_is_refused_by_its_kind")),
    never("volumes/headers.py", "    if magic[:4] != MAGIC[volume.driver]:\n", unit("formats", "what_is_not_of_the_format_is_refused")),
    never("volumes/headers.py", "        if header.has_data_file:\n            raise", unit("formats", "a_data_file_that_an_image_names_is_not_read")),
    never("volumes/headers.py", "        if vmdk.kind not in WHOLE_KINDS:\n", unit("soundness", "a_description_within_a_vmdk_is_believed_by_its_kind")),
    never("volumes/headers.py", "        if not vmdk.capacity:\n", unit("soundness", "a_vmdk_with_capacity_0_is_refused")),
    never("volumes/headers.py", "    if below and (not volume.alone if volume.backing is None else not _in_file(volume.backing)):\n", unit("formats", "a_backing_file_that_an_image_names_is_not_read")),
    Mutant("volumes/headers.py", "bool(self.features & _CORRUPT)", "False", unit("soundness", "damage_of_a_qcow2_is_named_with_its_file")),
    Mutant("volumes/headers.py", "self.dirty and not dirty_is_fine,", "False,", unit("soundness", "damage_of_a_qcow2_is_named_with_its_file")),
    Mutant("volumes/headers.py", ": self.l1_entries < needed,", ": False,", unit("soundness", "damage_of_a_qcow2_is_named_with_its_file")),
    Mutant("volumes/headers.py", ": refcounts > length,", ": False,", unit("soundness", "damage_of_a_qcow2_is_named_with_its_file")),
    Mutant("volumes/headers.py", "self.l1_offset + table\n            > length,", "False,", unit("soundness", "damage_of_a_qcow2_is_named_with_its_file")),
    Mutant("volumes/soundness.py", "            if is_written(fd):\n                unknown.append(f\"{volume_label(image)} was not checked: QEMU writes", "            if False:\n                unknown.append(f\"{volume_label(image)} was not checked: QEMU writes", unit("source_findings", "an_image_that_qemu_writes_to_is_left_to_the_attempt_which_checks_its_cut")),
    never("volumes/soundness.py", "    if faults:\n        raise JobFailed(errno.EIO, \"; \".join(faults))\n", unit("soundness", "damage_of_a_qcow2_is_named_with_its_file")),
)
# fmt: on
