"""fusible.enable(): what it fuses in the plans of a process, and that it tells, through both doors, what keeps it from running.

Plans, grad mode and the executor's switches belong to a process: every case has one of its own, and each says what the executor did.
"""
import textwrap

import pytest

MODELS = textwrap.dedent("""
    import contextlib, io, sys, threading, warnings
    import torch
    from torch import nn
    warnings.simplefilter("ignore", DeprecationWarning)
    torch.manual_seed(5)
    import fusible
    from fusible import cli

    def archive(*layers):
        buffer = io.BytesIO()
        torch.jit.save(torch.jit.script(nn.Sequential(*layers).eval()), buffer)
        return buffer

    def load(buffer):
        return torch.jit.load(io.BytesIO(buffer.getvalue()))

    CONVS = archive(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.Hardswish())
    X = torch.randn(2, 3, 9, 9)

    # The result, and the fused operators of the plan that was run last.
    def run(model, calls=3):
        for _ in range(calls):
            y = model(X)
        plan = torch.jit.last_executed_optimized_graph()
        return y, sorted(node.kind() for node in plan.nodes() if node.kind().startswith("fusible::"))

    def enable():
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            fusible.enable()
        assert all(w.category is RuntimeWarning and "will not run yet: " in str(w.message) for w in caught)
        return [str(w.message).partition("will not run yet: ")[2] for w in caught]

    def doctor():
        page = io.StringIO()
        with contextlib.redirect_stdout(page):
            assert cli.main(["doctor"]) == 0
        rows = [line.partition("JIT pass")[2].strip() for line in page.getvalue().splitlines() if line.startswith("JIT pass")]
        assert rows[0] == ("enabled" if fusible.enabled() else "disabled")
        return rows[1:]

    def doors():
        said = enable()
        assert said == doctor() == fusible.why_not_running(), (said, doctor())
        return said
""")


@pytest.fixture
def process(python, tmp_path):
    """Runs code behind MODELS in a new process, from a file: torch.jit.script reads the source."""
    def run(code):
        script = tmp_path / "script.py"
        script.write_text(MODELS + textwrap.dedent(code))
        python(script)

    return run


def test_without_blockers_nothing_is_said_and_the_plan_is_fused(process):
    process("""
        with torch.no_grad():
            bare = load(CONVS)
            expected, fused = run(bare)
            assert fused == []
            del bare
            assert doors() == []
            model = load(CONVS)
            y, fused = run(model)
            assert fused == ["fusible::conv_unpacked"] * 2, fused
            assert doors() == [] == fusible.why_not_running(model)
            torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-6)
        with torch.inference_mode():
            assert doors() == []
            assert len(run(load(CONVS))[1]) == 2
    """)


def test_grad_mode_on_at_the_first_call(process):
    process("""
        said = doors()
        assert len(said) == 1 and said[0].startswith("grad mode is on") and "torch.no_grad()" in said[0], said
        model = load(CONVS)
        assert fusible.why_not_running(model) == said
        run(model, 1)
        with torch.no_grad():
            assert run(model)[1] == []                             # the sentence is true
            reasons = fusible.why_not_running(model)
            assert len(reasons) == 1 and "'forward'" in reasons[0] and "in grad mode" in reasons[0], reasons
            assert len(run(load(CONVS))[1]) == 2                   # and its help helps
        frozen = torch.jit.freeze(load(CONVS))                     # nothing requires grad
        assert len(run(frozen)[1]) == 2 and fusible.why_not_running(frozen) == []
    """)


def test_optimised_execution_off(process):
    process("""
        with torch.no_grad():
            model = load(CONVS)
            with torch.jit.optimized_execution(False):
                said = doors()
                assert len(said) == 1 and said[0].startswith("optimised execution is off"), said
                assert run(model)[1] == []
            assert doors() == []
            assert run(model)[1] == []                             # submodules stayed calls
            assert len(fusible.why_not_running(model)) == 1 and "optimised execution" in fusible.why_not_running(model)[0]
            model = load(CONVS)
            assert len(run(model)[1]) == 2 and fusible.why_not_running(model) == []
    """)


def test_profiling_off(process):
    process("""
        with torch.no_grad():
            torch._C._jit_set_profiling_mode(False)
            said = doors()
            assert len(said) == 1 and said[0].startswith("profiling is off"), said
            model = load(CONVS)
            assert run(model)[1] == []
            torch._C._jit_set_profiling_mode(True)
            assert doors() == []
            model = load(CONVS)
            assert len(run(model)[1]) == 2
    """)


def test_the_executor_that_never_profiles_calls_the_pass_too(process):
    process("""
        with torch.no_grad():
            torch._C._jit_set_profiling_executor(False)
            assert doors() == []
            model = load(CONVS)
            assert len(run(model)[1]) == 2 and fusible.why_not_running(model) == []
    """)


def test_a_plan_made_before(process):
    process("""
        with torch.no_grad():
            model, other = load(CONVS), load(CONVS)
            run(model)
            assert len(fusible.why_not_running(other)) == 1 and fusible.why_not_running(other)[0].startswith("the pass is off")
            said = doors()
            assert len(said) == 1 and said[0].startswith("plans made before enable(): 1;"), said
            reasons = fusible.why_not_running(model)
            assert len(reasons) == 1 and "method 'forward' has a plan that was made before enable()" in reasons[0], reasons
            assert run(model)[1] == []
            assert fusible.why_not_running(other) == []
            assert len(run(other)[1]) == 2 and fusible.why_not_running(other) == []
            del model
            assert doors() == []
    """)


def test_a_model_with_nothing_to_fuse_has_no_older_plan(process):
    process("""
        with torch.no_grad():
            assert doors() == []
            model = load(archive(nn.MaxPool2d(2)))
            assert run(model)[1] == [] == fusible.why_not_running(model)
    """)


def test_disabled_is_said(process):
    process("""
        with torch.no_grad():
            assert doors() == []
            fusible.disable()
            assert len(doctor()) == 1 and doctor()[0].startswith("the pass is off"), doctor()
            assert run(load(CONVS))[1] == []
    """)


def test_all_blockers_at_once_are_all_told(process):
    process("""
        with torch.no_grad():
            model = load(CONVS)
            run(model)
        torch._C._jit_set_profiling_mode(False)
        with torch.jit.optimized_execution(False):
            said = doors()
        beginnings = ("grad mode is on", "optimised execution is off", "profiling is off", "plans made before enable(): 1;")
        assert len(said) == 4 and all(line.startswith(beginning) for line, beginning in zip(said, beginnings)), said
    """)


@pytest.mark.parametrize("value, row", [("1", "enabled"), ("0", "disabled"), ("", "disabled")])
def test_the_command_sees_the_variable(python, value, row):
    rows = [line.split(maxsplit=2)[2] for line in python("-m", "fusible", "doctor", env={"FUSIBLE_ENABLE": value}).stdout.splitlines()
            if line.startswith("JIT pass")]
    assert rows[0] == row and any(line.startswith("grad mode is on") for line in rows)
    assert any(line.startswith("the pass is off") for line in rows) == (row == "disabled")


def test_steps_and_operands_in_the_plan(process):
    process("""
        class Residual(nn.Module):
            def __init__(self):
                super().__init__()
                self.a, self.b, self.fc = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(3, 8, 1), nn.Linear(9, 4)

            def forward(self, x):
                return torch.sigmoid(self.fc(torch.relu(self.a(x) + self.b(x))))

        buffer = io.BytesIO()
        torch.jit.save(torch.jit.script(Residual().eval()), buffer)
        with torch.no_grad():
            expected, _ = run(load(buffer))
            fusible.enable()
            model = load(buffer)
            y, fused = run(model)
            assert fused == ["fusible::conv_unpacked", "fusible::linear_unpacked"], fused
            kinds = [node.kind() for node in torch.jit.last_executed_optimized_graph().nodes()]
            assert "aten::relu" not in kinds and "aten::add" not in kinds and "aten::sigmoid" not in kinds, kinds
            torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-6)
    """)


def test_an_older_plan_keeps_its_fusions_after_disable(process):
    process("""
        with torch.no_grad():
            assert doors() == []
            model = load(CONVS)
            before, _ = run(model)
            fusible.disable()
            after, fused = run(model)
            assert len(fused) == 2 and torch.equal(before, after)
    """)


def test_switching_while_other_threads_run(process):
    process("""
        with torch.no_grad():
            expected, _ = run(load(CONVS))
        stop, failures, plans = threading.Event(), [], []

        def work():
            try:
                while not stop.is_set():
                    with torch.no_grad():
                        model = load(CONVS)
                        y, fused = run(model, 4)
                    plans.append(len(fused))
                    torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-6)
            except BaseException as error:
                failures.append(repr(error))

        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        for i in range(200):
            (fusible.disable if i % 2 else fusible.enable)()
            fusible.why_not_running()
            if i % 20 == 0:
                with torch.no_grad():
                    model = load(CONVS)
                    torch.testing.assert_close(run(model)[0], expected, rtol=1e-5, atol=1e-6)
        while not failures and not {0, 2} <= set(plans):
            (fusible.disable if len(plans) % 2 else fusible.enable)()
        stop.set()
        for thread in threads:
            thread.join()
        assert failures == [], failures
        assert set(plans) == {0, 2}, plans
    """)
