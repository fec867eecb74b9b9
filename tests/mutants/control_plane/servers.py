"""Where the registry is, whether its server and its version are fit, and what the finalizer remembers of decisions."""

from __future__ import annotations

from typing import Final

from lines import Mutant, never, registry, unit

REFUSED: Final = unit("address", "what_cannot_be_used_is_refused_with_its_reason_and_without_its_secret")
MEANT: Final = unit("address", "a_url_has_one_meaning")
IN_A_FILE: Final = unit("address", "a_password_may_lie_in_a_file")
NO_PASSWORD: Final = unit("address", "a_file_without_a_password_is_refused_by_name")
TWICE_OR_RELATIVE: Final = unit("address", "a_password_twice_or_a_relative_path_is_refused")
ALONE: Final = unit("address", "a_file_is_for_a_user_whose_password_the_url_does_not_have")
MALFORMED: Final = unit("address", "nothing_of_a_url_is_shown_that_may_be_secret_however_malformed_it_is")
TOO_OLD: Final = registry("fit_server", "a_server_that_is_too_old_is_refused")
SETTINGS: Final = registry("fit_server", "each_setting_by_which_a_server_would_forget_is_an_error_of_its_own")
MAY_NOT_ASK: Final = registry("fit_server", "what_may_not_be_asked_is_a_warning_that_names_the_missing_right")


def unfit(case: str) -> str:
    """A server whose settings are otherwise than the shipped ones."""
    return f"'tests/redis/test_fit_server.py::test_every_process_refuses_a_server_that_would_forget_and_doctor_names_it[{case}]'"


# fmt: off
SERVERS: Final = (
    # One URL has one meaning.
    never("registry/address.py", "    if scheme in SCHEMES:\n        raise", REFUSED),
    Mutant("registry/address.py", "if scheme not in KINDS or ", "if ", REFUSED),
    Mutant("registry/address.py", 'or "://" not in url or', "or", REFUSED),
    Mutant("registry/address.py", " or parts.fragment:", ":", REFUSED),
    Mutant("registry/address.py", 'if not path.startswith("/") or parts.hostname:', "if parts.hostname:", REFUSED),
    Mutant("registry/address.py", 'if not path.startswith("/") or parts.hostname:', 'if not path.startswith("/"):', REFUSED),
    Mutant("registry/address.py", "if not parts.hostname or port == 0:", "if port == 0:", REFUSED),
    Mutant("registry/address.py", "if not parts.hostname or port == 0:", "if not parts.hostname:", REFUSED),
    never("registry/address.py", '    if below and "db" in options:\n', REFUSED),
    never("registry/address.py", "        if name not in OPTIONS[scheme]:\n", REFUSED),
    never("registry/address.py", "        if name in found:\n", REFUSED),
    Mutant("registry/address.py", "if not (text.isascii() and ", "if not (", REFUSED),
    Mutant("registry/address.py", " and text.isdecimal()", "", REFUSED),
    Mutant("registry/address.py", " and len(text) < 10)", ")", REFUSED),
    Mutant("registry/address.py", "    except ValueError:  # its text quotes the URL, with the password in it\n", "    except LookupError:\n", REFUSED),
    # TLS.
    Mutant("registry/address.py", '"ssl_cert_reqs": "required"', '"ssl_cert_reqs": "none"', MEANT),
    Mutant("registry/address.py", '"ssl_check_hostname": True', '"ssl_check_hostname": False', MEANT),
    Mutant("registry/address.py", "    _expect_files(url, files)\n", "", REFUSED),
    Mutant("registry/address.py", "if not os.path.isabs(path) or not os.access(path, os.R_OK):", "if not os.access(path, os.R_OK):", TWICE_OR_RELATIVE),
    Mutant("registry/address.py", "if not os.path.isabs(path) or not os.access(path, os.R_OK):", "if not os.path.isabs(path):", REFUSED),
    never("registry/address.py", '    if ("ssl_certfile" in files) != ("ssl_keyfile" in files):\n', REFUSED),
    # Passwords.
    Mutant("registry/address.py", 'password: str = field(default="", repr=False)', 'password: str = ""', unit("address", "an_address_shows_no_password")),
    never("registry/address.py", "    if PASSWORD_FILE in options:\n", IN_A_FILE),
    never("registry/address.py", '    if given:\n        raise _unusable_url(url, "a password and', TWICE_OR_RELATIVE),
    Mutant("registry/address.py", '.rstrip("\\n")', "", IN_A_FILE),
    Mutant("registry/address.py", "    except (OSError, UnicodeDecodeError, ValueError) as error:\n", "    except (UnicodeDecodeError, ValueError) as error:\n", NO_PASSWORD),
    Mutant("registry/address.py", "    except (OSError, UnicodeDecodeError, ValueError) as error:\n", "    except OSError as error:\n", NO_PASSWORD),
    Mutant("registry/address.py", "if not password or not os.path.isabs(path):", "if not os.path.isabs(path):", NO_PASSWORD),
    Mutant("registry/address.py", "if not password or not os.path.isabs(path):", "if not password:", TWICE_OR_RELATIVE),
    Mutant("registry/address.py", "return bool(parts.username) and ", "return ", ALONE),
    Mutant("registry/address.py", " and not parts.password and ", " and ", ALONE),
    Mutant("registry/address.py", " and PASSWORD_FILE not in query", "", ALONE),
    never("registry/address.py", '    if not sep:\n        return "***"\n', MALFORMED),
    Mutant("registry/address.py", "rest.rpartition(\"@\")", "rest.partition(\"@\")", MALFORMED),
    Mutant("registry/address.py", "user if user.isalnum() else", "user if user else", MALFORMED),
    Mutant("registry/address.py", ' if pair.startswith("db="))', ")", REFUSED),
    Mutant("registry/address.py", 'place.partition("#")[0].partition("?")', 'place.partition("?")', MALFORMED),
    # A server that would forget.
    never("registry/fitness.py", "        if finding.level is Level.ERROR:\n", TOO_OLD),
    Mutant("registry/fitness.py", "is Level.WARNING and warn:", "is Level.WARNING:", MAY_NOT_ASK),
    Mutant("registry/fitness.py", '    "appendonly": ("yes", "a restart would lose the registry"),\n', "", SETTINGS),
    Mutant("registry/fitness.py", """    "appendfsync": ("always", "'everysec' lost acknowledged writes on a plain kill -9"),\n""", "", SETTINGS),
    Mutant("registry/fitness.py", '    "maxmemory-policy": ("noeviction", "an eviction would delete jobs"),\n', "", SETTINGS),
    Mutant("registry/fitness.py", '"cluster": bool(info.get("cluster_enabled"))', '"cluster": False', unfit("a cluster")),
    Mutant("registry/fitness.py", '"role": info["role"],', '"role": "master",', unfit("a replica")),
    Mutant("registry/fitness.py", 'if server["replays"] is False and server["version-number"] >= (7,):', 'if server["version-number"] >= (7,):', registry("fit_server", "a_newer_server_is_not_asked_for_the_rights_of_its_user_default")),
    Mutant("registry/fitness.py", 'if server["replays"] is False and server["version-number"] >= (7,):', 'if server["replays"] is False:', TOO_OLD),
    Mutant("registry/fitness.py", '"replays": number >= REPLAYS[kind],', '"replays": True,', registry("fit_server", "a_right_that_the_user_lacks_by_whom_the_file_is_replayed_is_an_error")),
    Mutant("registry/fitness.py", 'if not _is_permission_denied(answer) and _decode_text(answer) not in ("OK", "True")', "if False", registry("fit_server", "a_right_that_the_user_lacks_by_whom_the_file_is_replayed_is_an_error")),
    Mutant("registry/fitness.py", 'if not _is_permission_denied(answer) and _decode_text(answer)', "if _decode_text(answer)", MAY_NOT_ASK),
    Mutant("registry/fitness.py", "if told and name in found:", "if name in found:", MAY_NOT_ASK),
    Mutant("registry/fitness.py", "    if isinstance(answer, redis.exceptions.NoPermissionError):\n        return True\n", "", MAY_NOT_ASK),
    # The version of the registry.
    never("registry/format.py", "    if found is not None and found > FORMAT:\n        raise Refused(f\"{_newer_format_text(found)}: install that version here, too\")\n    if found != FORMAT:", registry("format", "a_registry_of_a_newer_version_is_refused_and_keeps_its_number")),
    never("registry/format.py", "    if found != FORMAT:\n", registry("format", "the_control_plane_raises_the_number_and_everybody_else_goes_on")),
    never("registry/format.py", "    if found is not None and found > FORMAT:\n        raise Refused(f\"{_newer_format_text(found)}: install that version here, too\")\n    if found is not None and found < FORMAT:", registry("format", "a_registry_of_a_newer_version_is_refused_and_keeps_its_number")),
    never("registry/format.py", "    if found is not None and found < FORMAT:\n", registry("format", "a_host_and_a_client_wait_for_the_control_machine_to_be_upgraded")),
    never("registry/format.py", "    if not found.isdigit():\n", registry("format", "a_key_of_somebody_else_is_named")),
    never("registry/format.py", "    if found is None:\n        return None\n", registry("format", "a_registry_that_nobody_has_used_is_left_to_the_control_plane")),
    Mutant("registry/format.py", "    except redis.exceptions.NoPermissionError:\n", "    except KeyError:\n", registry("format", "a_user_who_may_not_look_is_warned_with_the_missing_right")),
    # What the finalizer has decided before.
    never("daemons/remembered.py", "            if number > self.known.number:\n", unit("remembered", "the_highest_decision_is_remembered_whatever_is_noted_after_it")),
    Mutant("daemons/remembered.py", "if number > self.known.number:", "if True:", unit("remembered", "the_highest_decision_is_remembered_whatever_is_noted_after_it")),
    Mutant("daemons/remembered.py", "not self._file.exists():", "False:", unit("remembered", "a_finalizer_that_has_decided_nothing_yet_complains_of_no_missing_record")),
    Mutant("daemons/remembered.py", "        except (OSError, ValueError, KeyError, TypeError) as error:\n", "        except (OSError, ValueError) as error:\n", registry("older_registry", "a_record_that_cannot_be_read_is_named_and_stops_nobody")),
    Mutant("daemons/remembered.py", "        except (OSError, ValueError, KeyError, TypeError) as error:\n", "        except (OSError, KeyError, TypeError) as error:\n", registry("older_registry", "a_record_that_cannot_be_read_is_named_and_stops_nobody")),
    Mutant("daemons/remembered.py", "            except OSError as error:\n                log", "            except KeyError as error:\n                log", unit("remembered", "a_decision_that_could_not_be_written_keeps_no_later_one_from_being_written")),
    Mutant("daemons/remembered.py", 'aside = file.with_suffix(".new")', "aside = file", unit("remembered", "the_record_is_replaced_as_a_whole_and_never_half_written")),
    Mutant("daemons/remembered.py", "        os.fsync(new.fileno())\n", "        pass\n", unit("remembered", "the_record_is_replaced_as_a_whole_and_never_half_written"), survives="only a loss of power tells, and what it takes is known to the hosts that carried it out"),
    Mutant("daemons/remembered.py", "        os.fsync(directory)\n", "        pass\n", unit("remembered", "the_record_is_replaced_as_a_whole_and_never_half_written"), survives="only a loss of power tells, and what it takes is known to the hosts that carried it out"),
    Mutant("daemons/remembered.py", "    with suppress(OSError):\n        place", "    if True:\n        place", registry("older_registry", "a_place_that_cannot_be_written_is_told_and_done_without")),
    Mutant("daemons/remembered.py", "if os.access(place, os.W_OK | os.X_OK):", "if True:", registry("older_registry", "a_place_that_cannot_be_written_is_told_and_done_without")),
)
# fmt: on
