import gc
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode
from test_serial import FAULTS, MODES, SPACES, assert_same, play
from toy_environments import Faulty, Frugal, Imports, RandomWalk, Spaces

from envs.errors import RllabError
from envs.make import EnvConfig, make_vector, reset
from envs.rows import describe_row
from envs.serial import SerialVectorEnv
from envs.snapshot import capture, restore
from envs.workers import WorkerVectorEnv, available_cores

TWO = np.zeros(2, int)


def faulty(*arguments, num_envs=2, workers=2, **settings):
    return WorkerVectorEnv([partial(Faulty, *arguments, **settings)] * num_envs, workers=workers)


def processes(vector_env):
    return [worker.process for worker in vector_env._workers]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("id", ["CartPole-v1", "Taxi-v4", "HalfCheetah-v5", "toy_environments:ObjectWalk-v0"])
def test_trajectories_equal_those_of_one_process(id, mode):
    seen = []
    for vectorization in ("sync", "workers"):
        vector_env = make_vector(EnvConfig(id, 3, vectorization, mode, workers=2, max_episode_steps=9))
        seen.append(play(vector_env, 40))
        vector_env.close()
    assert_same(*seen)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_nested_spaces_cross_between_the_processes():
    space = spaces.Dict({name.replace(" ", "_"): part for name, part in SPACES.items()})
    constructors = [partial(Spaces, space, space)] * 3
    side_by_side = WorkerVectorEnv(constructors, workers=2)
    assert_same(play(SerialVectorEnv(constructors), 13), play(side_by_side, 13))
    side_by_side.close()


def test_what_a_step_returns_lies_in_shared_memory_and_outlives_one_more_step():
    vector_env = WorkerVectorEnv([Frugal] * 2, workers=2)
    vector_env.reset(seed=0)
    first, *_ = vector_env.step(np.zeros((2, 1)))
    second, *_ = vector_env.step(np.zeros((2, 1)))
    assert (first.tolist(), second.tolist()) == ([[1.0], [1.0]], [[2.0], [2.0]])
    third, *_ = vector_env.step(np.zeros((2, 1)))
    assert first.ctypes.data == third.ctypes.data
    vector_env.close()


def test_an_environment_may_keep_its_action_while_the_next_one_is_written():
    vector_env = WorkerVectorEnv([Frugal], workers=1)
    vector_env.reset(seed=0)
    assert vector_env.step(np.array([[0.25]]))[1] == 0.25
    assert vector_env.step(np.array([[0.75]]))[1] == 0.5
    vector_env.close()


def test_snapshots_can_be_exchanged_between_one_process_and_several():
    first, second = (make_vector(EnvConfig("HalfCheetah-v5", 3, one, workers=2)) for one in ("sync", "workers"))
    reset(first, 3)
    actions = [first.action_space.sample() for _ in range(20)]
    for action in actions[:10]:
        first.step(action)
    assert restore(second, capture(first)) == {}
    assert describe_row(second, 2) == describe_row(first, 2).replace("(", "(worker 1, ")
    for action in actions[10:]:
        np.testing.assert_array_equal(first.step(action)[0], second.step(action)[0])
    second.close()


def test_there_are_no_more_workers_than_environments_and_by_default_one_on_each_core():
    for num_envs, workers, expected in ((2, 5, 2), (3, 2, 2), (2, 0, min(2, available_cores()))):
        vector_env = WorkerVectorEnv([RandomWalk] * num_envs, workers=workers)
        assert len(processes(vector_env)) == expected
        vector_env.close()


def test_workers_do_not_import_torch():
    vector_env = WorkerVectorEnv([Imports], workers=1)
    assert vector_env.reset()[0] == [0]
    vector_env.close()


@pytest.mark.parametrize("what", FAULTS)
def test_a_fault_of_an_environment_is_told_in_one_sentence_that_names_it(what):
    vector_env = faulty(what, 7, only_seed=11, num_envs=3)
    vector_env.reset(seed=[10, 11, 12])
    for _ in range(6):
        vector_env.step(np.zeros(3, int))
    with pytest.raises(RllabError) as caught:
        vector_env.step(np.zeros(3, int))
    assert str(caught.value).startswith(f"environment 1 (worker 1, seed 11) {FAULTS[what]}")
    assert "step 7" in str(caught.value)
    require_ended(vector_env)


def test_a_fault_at_a_reset_is_told_too_and_where_it_was_raised():
    vector_env = faulty("raise", 0)
    with pytest.raises(
        RllabError, match=r"^environment 0 \(worker 0, seed 4\) failed at its reset after step 0: V"
    ) as caught:
        vector_env.reset(seed=4)
    assert 'raise ValueError("a hinge broke' in str(caught.value.__cause__)
    require_ended(vector_env)


def require_ended(vector_env):
    """After a fault all workers are gone, closing is safe, and what comes next is refused."""
    assert all(process.poll() is not None for process in processes(vector_env))
    with pytest.raises(RllabError, match="closed"):
        vector_env.step(np.zeros(vector_env.num_envs, int))
    vector_env.close()
    vector_env.close()


def test_a_worker_that_is_killed_is_named_with_its_environments_and_the_signal():
    vector_env = faulty(num_envs=3)
    vector_env.reset(seed=[10, 11, 12])
    vector_env.step(np.zeros(3, int))
    processes(vector_env)[1].kill()
    with pytest.raises(RllabError) as caught:
        vector_env.step(np.zeros(3, int))
    assert str(caught.value) == (
        "Worker 1 with environment 1 (seed 11) and environment 2 (seed 12) was killed by SIGKILL at step 2 "
        "(which the system does when memory runs out)."
    )
    require_ended(vector_env)


def test_a_worker_whose_environment_ends_the_process_is_named():
    vector_env = faulty("leave", 1)
    vector_env.reset(seed=0)
    with pytest.raises(
        RllabError, match=r"^Worker 0 with environment 0 \(seed 0\) ended with exit code 3 at step 1\.$"
    ):
        vector_env.step(TWO)
    require_ended(vector_env)


def test_a_worker_that_died_before_a_snapshot_is_named():
    vector_env = faulty()
    vector_env.reset(seed=0)
    for process in processes(vector_env):
        process.kill()
        process.wait()
    with pytest.raises(RllabError, match="SIGKILL at step 0"):
        capture(vector_env)
    require_ended(vector_env)


def test_workers_leave_the_terminals_signals_to_their_parent():
    vector_env = faulty()
    vector_env.reset(seed=0)
    for process in processes(vector_env):
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGTERM)
    vector_env.step(TWO)
    vector_env.close()
    assert [process.returncode for process in processes(vector_env)] == [0, 0]


def test_emulators_in_workers_print_no_banner(capfd):
    pytest.importorskip("ale_py")
    make_vector(EnvConfig("ALE/Pong-v5", 1, "workers")).close()
    assert capfd.readouterr() == ("", "")


def test_an_interrupt_in_the_middle_of_a_step_ends_the_workers(monkeypatch):
    vector_env = faulty()
    vector_env.reset(seed=0)

    def interrupt(index):
        raise KeyboardInterrupt

    monkeypatch.setattr(vector_env, "_receive", interrupt)
    with pytest.raises(KeyboardInterrupt):
        vector_env.step(TWO)
    require_ended(vector_env)


def test_environments_that_are_forgotten_are_closed():
    vector_env = faulty()
    forgotten = processes(vector_env)
    del vector_env
    gc.collect()
    assert all(process.poll() is not None for process in forgotten)


def program(body):
    return f"""
import sys
sys.path[:0] = {[str(Path(__file__).parent), *sys.path]!r}
import os, signal
import gymnasium
import numpy as np
from functools import partial
from envs.make import EnvConfig, make_vector, reset
from envs.workers import WorkerVectorEnv
from toy_environments import RandomWalk
{body}
"""


def test_workers_end_with_a_parent_that_is_killed():
    body = """
vector_env = WorkerVectorEnv([RandomWalk] * 2, workers=2)
print(*(worker.process.pid for worker in vector_env._workers), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    killed = subprocess.run([sys.executable, "-c", program(body)], stdout=subprocess.PIPE, timeout=120)
    for pid in map(int, killed.stdout.split()):
        deadline = time.monotonic() + 60
        while is_running(pid):
            assert time.monotonic() < deadline
            time.sleep(0.05)


def is_running(pid):
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


def test_a_parent_that_closes_nothing_ends_quietly():
    body = 'vector_env = make_vector(EnvConfig("toy_environments:RandomWalk-v0", 2, "workers"))\nreset(vector_env, 0)'
    done = subprocess.run([sys.executable, "-c", program(body)], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_forked_copy_of_the_parent_leaves_the_workers_alone():
    body = """
vector_env = WorkerVectorEnv([RandomWalk] * 2, workers=2)
vector_env.reset(seed=0)
child = os.fork()
if child == 0:
    sys.exit()
os.waitpid(child, 0)
vector_env.step(np.zeros(2, int))
vector_env.close()
print(*(worker.process.returncode for worker in vector_env._workers))
"""
    done = subprocess.run([sys.executable, "-c", program(body)], capture_output=True, text=True, timeout=120)
    assert (done.stdout, done.stderr) == ("0 0\n", "")


def test_an_environment_of_the_main_script_is_refused_with_what_to_do():
    body = """
class Mine(RandomWalk): pass
gymnasium.register("Mine-v0", Mine)
make_vector(EnvConfig("Mine-v0", 2, "workers"))
"""
    done = subprocess.run([sys.executable, "-c", program(body)], capture_output=True, text=True, timeout=120)
    assert "cannot import an environment from the main script" in done.stderr


def test_what_cannot_be_sent_or_shared_is_refused_with_what_to_do():
    with pytest.raises(RllabError, match=r"cannot be sent to worker processes .*: use sync\.$"):
        WorkerVectorEnv([lambda: RandomWalk()])
    with pytest.raises(RllabError, match=r"cannot share observations of Text.*: use sync\.$"):
        WorkerVectorEnv([partial(Spaces, spaces.Tuple([spaces.Text(3)]), spaces.Discrete(2))])
    with pytest.raises(RllabError, match="same step or the next"):
        WorkerVectorEnv([RandomWalk], AutoresetMode.DISABLED)
    with pytest.raises(RllabError, match="workers must be at least 1"):
        make_vector(EnvConfig("Pendulum-v1", 2, "workers", workers=-1))
    with pytest.raises(RllabError, match="different spaces"):
        WorkerVectorEnv([Faulty, Frugal], workers=2)
